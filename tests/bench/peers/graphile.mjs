// graphile-worker:  node graphile.mjs migrate | work default|tuned | fill COUNT [TASK] | one LANES SECONDS | many BATCH SECONDS |
// latency COUNT PAUSE_MS | version. The database is DATABASE_URL.
import { readFileSync } from 'node:fs';
import { Logger, makeWorkerUtils, run, runMigrations } from 'graphile-worker';
import pg from 'pg';
import { Ran, fill, forAWhile, oneByOne, untilTold } from './common.mjs';

const connectionString = process.env.DATABASE_URL;
const [command, ...args] = process.argv.slice(2);
const logger = new Logger(() => (level, message) => {
    if (level === 'error') console.error(message); // each job's line is logged by the workers only
});

// The best that was found: more of any of these made no difference or a worse one.
const tuned = { preset: { worker: { connectionString, concurrentJobs: 24, maxPoolSize: 25, localQueue: { size: 500 },
    completeJobBatchDelay: 50, failJobBatchDelay: 50 } } };

async function work(how) {
    const ran = new Ran();
    const taskList = {
        noop: async payload => ran.note(payload),
        half: async payload => {
            ran.note(payload);
            if (payload.user_id % 2) throw new Error('the odd ones fail');
        },
    };
    const runner = await run({ taskList, noHandleSignals: true, ...(how === 'tuned' ? tuned : { connectionString }) });
    untilTold(() => runner.stop(), () => ran.report());
}

async function withUtils(lanes, does) {
    const pgPool = new pg.Pool({ connectionString, max: lanes });
    const utils = await makeWorkerUtils({ pgPool, logger });
    await does(utils);
    await utils.release();
    await pgPool.end();
}

const commands = {
    migrate: () => runMigrations({ connectionString, logger }),
    work,
    fill: (count, task = 'noop') => withUtils(1, utils =>
        fill(+count, payloads => utils.addJobs(payloads.map(payload => ({ identifier: task, payload }))))),
    one: (lanes, seconds) => withUtils(+lanes, utils =>
        forAWhile(+lanes, +seconds, async n => {
            await utils.addJob('noop', { user_id: n });
            return 1;
        })),
    many: (batch, seconds) => withUtils(1, utils =>
        forAWhile(1, +seconds, async from => {
            await utils.addJobs(Array.from({ length: +batch }, (_, i) => ({ identifier: 'noop', payload: { user_id: from + i } })));
            return +batch;
        })),
    latency: (count, pauseMs) => withUtils(1, utils =>
        oneByOne(+count, +pauseMs, payload => utils.addJob('noop', payload))),
    version: () => console.log(JSON.parse(readFileSync('node_modules/graphile-worker/package.json')).version),
};
await commands[command](...args);
