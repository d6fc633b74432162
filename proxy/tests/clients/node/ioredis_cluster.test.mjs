// Cluster of ioredis with its defaults, where the proxy poses as a cluster: over plain shards, and over a Redis Cluster. It asks for
// CLUSTER SLOTS again and again, and for CLUSTER INFO of the node it begins with.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Cluster } from 'ioredis';

const { MEMSTORE_HOST: host, MEMSTORE_FACADE_PORT: plain, MEMSTORE_FACADE_CLUSTER_PORT: cluster } = process.env;

for (const [over, port] of [['plain shards', plain], ['a cluster', cluster]]) {
  const title = (what) => `ioredis Cluster over ${over}: ${what}`;

  async function withClient(use, options = {}) {
    const client = new Cluster([{ host, port: Number(port) }], options);
    client.on('error', () => {}); // promises tell it as well
    try {
      await use(client);
    } finally {
      client.disconnect();
    }
  }

  test(title('keys of all slots'), () => withClient(async (client) => {
    const keys = Array.from({ length: 300 }, (_, number) => `iocluster:${number}`);
    assert.deepEqual(await Promise.all(keys.map((key) => client.set(key, `${key}!`))), Array(300).fill('OK'));
    assert.deepEqual(await Promise.all(keys.map((key) => client.get(key))), keys.map((key) => `${key}!`));
    assert.deepEqual(await client.mget('{io}a', '{io}b'), [null, null]);
    assert.deepEqual(client.nodes('master').map((node) => [node.options.host, node.options.port]), [[host, Number(port)]]);
    assert.equal(await client.del(keys[0]), 1);
  }));

  test(title('pipelines'), () => withClient(async (client) => {
    const pipeline = client.pipeline();
    for (let number = 0; number < 100; number += 1) pipeline.set(`{iopipe}${number}`, number);
    for (let number = 0; number < 100; number += 1) pipeline.get(`{iopipe}${number}`);
    const replies = await pipeline.exec();
    assert.deepEqual(replies.slice(100), Array.from({ length: 100 }, (_, number) => [null, String(number)]));
    assert.deepEqual(await client.multi().set('{iotx}a', 1).incr('{iotx}a').exec(), [[null, 'OK'], [null, 2]]);
  }));

  test(title('a script as a command'), () => withClient(async (client) => {
    client.defineCommand('twice', { numberOfKeys: 1, lua: 'return {KEYS[1], KEYS[1]}' });
    for (let number = 0; number < 30; number += 1) {
      assert.deepEqual(await client.twice(`k${number}`), [`k${number}`, `k${number}`]);
    }
  }));

  test(title('channels'), () => withClient(async (client) => {
    const listener = client.duplicate();
    try {
      const told = new Promise((resolve) => { listener.on('message', (channel, message) => resolve([channel, message])); });
      await listener.subscribe('iochannel');
      await client.publish('iochannel', 'hello');
      assert.deepEqual(await told, ['iochannel', 'hello']);
    } finally {
      listener.disconnect();
    }
  }));

  test(title('reads from replicas'), () => withClient(async (client) => {
    await client.set('ioread', 1);
    assert.equal(await client.get('ioread'), '1');
  }, { scaleReads: 'slave' }));
}
