// Works on all queues; what it has done it counts in the store.
import { Redis } from 'ioredis';
import { names, worker } from './queues.mjs';

const store = new Redis(process.env.REDIS_URL);

async function square(job) {
  await store.incr(`${job.data.number}:executed:${job.queueName}`);
  return job.data.number ** 2;
}

async function total(job) {
  return Object.values(await job.getChildrenValues()).reduce((sum, value) => sum + value, 0);
}

const workers = [
  ...names.map((name) => worker(name, square, { concurrency: 5 })),
  worker('parts', square, { prefix: '{flows}' }),
  worker('whole', total, { prefix: '{flows}' }),
];
await Promise.all(workers.map((each) => each.waitUntilReady()));
console.log('ready');

process.on('SIGTERM', async () => {
  await Promise.all(workers.map((each) => each.close()));
  process.exit();
});
