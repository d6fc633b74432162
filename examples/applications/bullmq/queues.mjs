// BullMQ: jobs, delayed jobs and flows, in queues on several shards. The setting of memstore's pool:
//
//     hash_tag: "{}"
//
// npm install bullmq ioredis, then REDIS_URL=redis://... node worker.mjs
import { Queue, QueueEvents, Worker } from 'bullmq';

// A queue has many keys, which its scripts need on one shard: the name of the queue in braces makes it one. A flow goes over queues
// of one shard, for example with the prefix "{flows}" instead.
export const names = ['{mails}', '{images}', '{reports}', '{payments}', '{searches}', '{exports}'];

const connection = { url: process.env.REDIS_URL };

export const queue = (name, options) => new Queue(name, { connection, ...options });
export const events = (name, options) => new QueueEvents(name, { connection, ...options });
export const worker = (name, work, options) => new Worker(name, work, { connection, ...options });
