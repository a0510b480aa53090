// What the peers' programs share: what ran and when, and loops that enqueue.
import { writeFileSync } from 'node:fs';

// Ran counts the jobs that ran, by the number in their payload, and knows which ran twice.
export class Ran {
    seen = new Map();
    times = [];
    twice = 0;
    delays = [];

    note(payload) {
        const now = performance.timeOrigin + performance.now();
        const n = payload.user_id;
        if (this.seen.has(n)) this.twice += 1;
        this.seen.set(n, true);
        this.times.push(now);
        if (payload.sent) this.delays.push(now - payload.sent);
    }

    report() {
        return { ran: this.times.length, distinct: this.seen.size, twice: this.twice, delays: this.delays,
            times: this.times.map(t => Math.round(t * 1000) / 1e6) };
    }
}

export const now = () => performance.timeOrigin + performance.now();

// untilTold writes what it is given as JSON to the file BENCH_REPORT when the program is told to end.
export function untilTold(stop, report) {
    const end = async () => {
        await stop();
        writeFileSync(process.env.BENCH_REPORT, JSON.stringify(report()));
        process.exit(0);
    };
    process.on('SIGTERM', end);
    process.on('SIGINT', end);
}

// forAWhile calls add on `lanes` lanes at once for some seconds; add returns how many it stored. Prints the rate.
export async function forAWhile(lanes, seconds, add) {
    let stored = 0, end = 0;
    const start = now();
    const lane = async () => {
        while (now() - start < seconds * 1000) stored += await add(stored);
        end = Math.max(end, now());
    };
    await Promise.all(Array.from({ length: lanes }, lane));
    console.log(JSON.stringify({ stored, seconds: (end - start) / 1000 }));
}

// fill stores count jobs numbered from 1, a thousand at a time.
export async function fill(count, add) {
    for (let from = 1; from <= count; from += 1000)
        await add(Array.from({ length: Math.min(1000, count - from + 1) }, (_, i) => ({ user_id: from + i })));
}

// oneByOne enqueues count jobs with a pause after each, and the time of sending in each.
export async function oneByOne(count, pauseMs, add) {
    for (let n = 0; n < count; n++) {
        await add({ user_id: 'l' + n, sent: now() });
        await new Promise(done => setTimeout(done, pauseMs));
    }
}
