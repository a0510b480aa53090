"""The benchmark's table, JSON and plot."""

import json
import os
import re
import statistics
import subprocess
import time
from html import escape

from systems import NODE, OUT, TIDEMILL

SETTINGS = ("fsync", "synchronous_commit", "full_page_writes", "wal_level", "shared_buffers", "max_wal_size",
            "autovacuum")


def figure(x):
    return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}"


def about(cluster, b, reps, took):
    """What was measured, on what."""
    with open("/proc/cpuinfo") as f:
        cpu = re.search(r"model name\s*: (.*)", f.read())
    facts = {
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "processor": f"{os.cpu_count()} cores, {cpu.group(1) if cpu else 'unknown'}",
        "kernel": os.uname().release,
        "PostgreSQL": cluster.sql("postgres", "select current_setting('server_version');"),
        "tidemill": subprocess.run([TIDEMILL, "--version"], capture_output=True, text=True, check=False).stdout.strip(),
        "runs of each": reps,
        "load average of the machine": " ".join(f"{x:.1f}" for x in os.getloadavg()),
        "took": f"{took:.0f} s",
    }
    for name in SETTINGS:
        facts[name] = cluster.sql("postgres", f"show {name};")
    if b.graphile:
        facts["graphile-worker"], facts["pg-boss"] = b.graphile.call("version"), b.pgboss.call("version")
        facts["node"] = subprocess.run([NODE, "--version"], capture_output=True, text=True, check=False).stdout.strip()
        facts["graphile-worker tuned"] = "concurrentJobs 24, maxPoolSize 25, localQueue.size 500, batch delays 50 ms"
        facts["pg-boss tuned"] = "batchSize 2000, burstWhenBatchFull, localConcurrency 2"
    return facts


def table(results):
    lines = []
    for r in results:
        first = statistics.median(next(iter(r["values"].values())))
        lines.append(f"\n{r['title']} ({r['unit']}, {r['better']} is better)")
        for name, values in r["values"].items():
            median = statistics.median(values)
            ratio = f"{first / median:8.2f}" if median else "       -"
            lines.append(f"  {name:46}{figure(median):>10}  {figure(min(values)):>10} to {figure(max(values)):<10}{ratio}")
        for name, notes in r["notes"].items():
            medians = {k: statistics.median(n[k] for n in notes if k in n) for k in notes[0]}
            lines.append(f"    {name}: " + ", ".join(f"{k} {figure(v)}" for k, v in medians.items()))
    return "\n".join(lines)


def plot(results, facts):
    """Bars, one panel a cell: the median, and a line from the lowest to the highest."""
    left, width, bar, gap, out, y = 330, 420, 18, 46, [], 60
    for r in results:
        top = max(max(v) for v in r["values"].values()) or 1
        out.append(f'<text x="10" y="{y}" class="t">{escape(r["title"])} ({escape(r["unit"])})</text>')
        y += 10
        for name, values in r["values"].items():
            median, low, high = statistics.median(values), min(values), max(values)
            scale = width / top
            kind = "own" if "tidemill" in name or name[0].isdigit() or name in ("one", "none") else "other"
            out.append(f'<text x="{left - 8}" y="{y + 13}" class="n">{escape(name)}</text>'
                       f'<rect x="{left}" y="{y}" width="{max(median * scale, 1):.1f}" height="{bar - 4}" class="{kind}"/>'
                       f'<path d="M{left + low * scale:.1f} {y + 7}H{left + high * scale:.1f}" class="w"/>'
                       f'<text x="{left + high * scale + 8:.1f}" y="{y + 12}" class="v">{figure(median)}</text>')
            y += bar
        y += gap - 10
    title = f'PostgreSQL {facts["PostgreSQL"]}, {facts["processor"]}; medians of {facts["runs of each"]}, lowest to highest'
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 110}" height="{y}" font-family="sans-serif">'
            '<style>.t{font-size:14px;font-weight:bold}.n{font-size:12px;text-anchor:end}.v{font-size:12px}.own{fill:#27748e}'
            '.other{fill:#b4bcc4}.w{stroke:#222;stroke-width:1.5}.h{font-size:12px;fill:#555}</style>'
            '<rect width="100%" height="100%" fill="#fff"/>'
            f'<text x="10" y="24" class="h">{escape(title)}</text>' + "\n".join(out) + "</svg>\n")


def write(results, facts, checks):
    with open(OUT + "/results.json", "w") as f:
        json.dump({"about": facts, "results": results, "checks": checks}, f, indent=1)
    with open(OUT + "/results.svg", "w") as f:
        f.write(plot(results, facts))
    text = "\n".join(f"{k}: {v}" for k, v in facts.items()) + "\n" + table(results)
    text += f"\n\nchecked after {len(checks)} runs: none lost, none run twice\n"
    with open(OUT + "/results.txt", "w") as f:
        f.write(text)
    print("\n" + text)
    print(f"also in {OUT}: results.json, results.svg, results.txt")
