// pg-boss:  node pgboss.mjs migrate | work default|tuned|notify | fill COUNT | one LANES SECONDS | many BATCH SECONDS |
// latency COUNT PAUSE_MS | version. The database is DATABASE_URL.
import { readFileSync } from 'node:fs';
import { PgBoss } from 'pg-boss';
import { Ran, fill, forAWhile, oneByOne, untilTold } from './common.mjs';

const connectionString = process.env.DATABASE_URL;
const [command, ...args] = process.argv.slice(2);

async function start(options) {
    const boss = new PgBoss({ connectionString, ...options });
    boss.on('error', error => console.error(error.message));
    await boss.start();
    return boss;
}

// quiet: a boss that only sends.
const quiet = lanes => start({ supervise: false, schedule: false, max: lanes });

const ways = {
    default: [{}, {}],
    tuned: [{ max: 10 }, { batchSize: 2000, burstWhenBatchFull: true, localConcurrency: 2, pollingIntervalSeconds: 0.5 }],
    notify: [{ useListenNotify: true }, {}],
};

async function work(how) {
    const ran = new Ran();
    const [options, workOptions] = ways[how];
    const boss = await start(options);
    await boss.work('noop', workOptions, async jobs => {
        for (const job of jobs) ran.note(job.data);
    });
    untilTold(() => boss.stop({ graceful: true, close: true }), () => ran.report());
}

const commands = {
    migrate: async notify => {
        const boss = await start({ supervise: false, schedule: false });
        await boss.createQueue('noop', notify ? { notify: true } : {});
        await boss.stop();
    },
    work,
    fill: async count => {
        const boss = await quiet(1);
        await fill(+count, payloads => boss.insert('noop', payloads.map(data => ({ data }))));
        await boss.stop();
    },
    one: async (lanes, seconds) => {
        const boss = await quiet(+lanes);
        await forAWhile(+lanes, +seconds, async n => {
            await boss.send('noop', { user_id: n });
            return 1;
        });
        await boss.stop();
    },
    many: async (batch, seconds) => {
        const boss = await quiet(1);
        await forAWhile(1, +seconds, async from => {
            await boss.insert('noop', Array.from({ length: +batch }, (_, i) => ({ data: { user_id: from + i } })));
            return +batch;
        });
        await boss.stop();
    },
    latency: async (count, pauseMs) => {
        const boss = await quiet(1);
        await oneByOne(+count, +pauseMs, payload => boss.send('noop', payload));
        await boss.stop();
    },
    version: () => console.log(JSON.parse(readFileSync('node_modules/pg-boss/package.json')).version),
};
await commands[command](...args);
