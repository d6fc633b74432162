// Two processes of workers execute the jobs of six queues, each once.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { FlowProducer, Queue } from 'bullmq';
import { Redis } from 'ioredis';
import { events, names, queue } from './queues.mjs';

const JOBS = 40;
const WAIT = 60_000;
const store = new Redis(process.env.REDIS_URL);
const opened = [];
const open = (each) => (opened.push(each), each);
const processes = await Promise.all([1, 2].map(async () => {
  const child = spawn(process.execPath, [new URL('worker.mjs', import.meta.url).pathname], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(createInterface({ input: child.stdout }), 'line');
  return child;
}));

test.after(async () => {
  await Promise.all(processes.map((child) => (child.kill(), once(child, 'exit'))));
  await Promise.all(opened.map((each) => each.close()));
  store.disconnect();
});

for (const name of names) {
  test(`jobs of ${name}`, async () => {
    const [jobs, told] = [open(queue(name)), open(events(name))];
    await told.waitUntilReady();
    // One for each job that is waited for.
    jobs.setMaxListeners(0);
    const numbers = [...Array(JOBS).keys()];
    const added = await jobs.addBulk(numbers.map((number) => ({ name: 'square', data: { number }, opts: { priority: number % 3 } })));
    const late = await jobs.add('square', { number: JOBS }, { delay: 500 });
    const results = await Promise.all([...added, late].map((job) => job.waitUntilFinished(told, WAIT)));
    assert.deepEqual(results, [...numbers, JOBS].map((number) => number ** 2));
    const executed = await store.mget([...numbers, JOBS].map((number) => `${number}:executed:${name}`));
    assert.deepEqual(executed, Array(JOBS + 1).fill('1'));
    assert.equal((await jobs.getJobCounts('completed')).completed, JOBS + 1);
    assert.ok(late.timestamp + 500 <= (await jobs.getJob(late.id)).processedOn);
  });
}

test('a flow', async () => {
  const prefix = '{flows}';
  const told = open(events('whole', { prefix }));
  await told.waitUntilReady();
  const flows = open(new FlowProducer({ connection: { url: process.env.REDIS_URL }, prefix }));
  const children = [1, 2, 3, 4].map((number) => ({ name: 'square', queueName: 'parts', data: { number } }));
  const { job } = await flows.add({ name: 'total', queueName: 'whole', children });
  assert.equal(await job.waitUntilFinished(told, WAIT), 30);
});

test('without the settings it is refused', async () => {
  const jobs = open(new Queue('mails', { connection: { url: process.env.DEFAULTS_URL } }));
  const refused = await jobs.add('square', { number: 1 }).then(() => 'it works', (error) => error.message);
  console.log(`refused: EVAL: ${refused}`);
});
