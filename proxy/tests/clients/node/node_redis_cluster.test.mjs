// createCluster of node-redis with its defaults, where the proxy poses as a cluster: over plain shards, and over a Redis Cluster.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createCluster } from 'redis';

const { MEMSTORE_HOST: host, MEMSTORE_FACADE_PORT: plain, MEMSTORE_FACADE_CLUSTER_PORT: cluster } = process.env;

for (const [over, port] of [['plain shards', plain], ['a cluster', cluster]]) {
  const title = (what) => `node-redis createCluster over ${over}: ${what}`;

  async function withClient(use, options = {}) {
    const client = createCluster({ rootNodes: [{ url: `redis://${host}:${port}` }], ...options });
    client.on('error', () => {});
    await client.connect();
    try {
      await use(client);
    } finally {
      client.destroy();
    }
  }

  test(title('keys of all slots'), () => withClient(async (client) => {
    const keys = Array.from({ length: 300 }, (_, number) => `nodecluster:${number}`);
    assert.deepEqual(await Promise.all(keys.map((key) => client.set(key, `${key}!`))), Array(300).fill('OK'));
    assert.deepEqual(await Promise.all(keys.map((key) => client.get(key))), keys.map((key) => `${key}!`));
    assert.deepEqual(client.masters.map((node) => [node.host, node.port]), [[host, Number(port)]]);
    assert.deepEqual(await client.multi().set('{nodetx}a', 1).incr('{nodetx}a').exec(), ['OK', 2]);
    assert.equal(await client.eval('return KEYS[1]', { keys: ['nodescript'] }), 'nodescript');
  }));

  test(title('channels'), () => withClient(async (client) => {
    for (const [subscribe, publish] of [['subscribe', 'publish'], ['sSubscribe', 'sPublish']]) {
      let hear;
      const told = new Promise((resolve) => { hear = resolve; });
      await client[subscribe](`nodechannel:${publish}`, (message, channel) => hear([channel, message]));
      await client[publish](`nodechannel:${publish}`, 'hello');
      assert.deepEqual(await told, [`nodechannel:${publish}`, 'hello']);
    }
  }));

  test(title('reads from replicas'), () => withClient(async (client) => {
    await client.set('noderead', 1);
    assert.equal(await client.get('noderead'), '1');
  }, { useReplicas: true }));
}
