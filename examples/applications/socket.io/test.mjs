// Two servers with clients at each, with both adapters: what one says in a room arrives at all that are in it, once and in order.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { after, describe, test } from 'node:test';
import { createClient } from 'redis';
import { io } from 'socket.io-client';

const host = process.env.MEMSTORE_HOST;
const rooms = Array.from({ length: 12 }, (_, number) => `room-${number}`);
// A server that has a client in a room has asked to hear of the room, but is not told yet that it does.
async function bothListen(store, channel) {
  while (Number((await store.sendCommand(['PUBSUB', 'SHARDNUMSUB', channel]))[1]) < 2);
}
const heard = (client, count) => new Promise((resolve) => {
  const enough = () => client.heard.length >= count && (resolve(client.heard.splice(0)), true);
  if (!enough()) client.waits.push(enough);
});

for (const sharded of ['', 'yes']) await describe(sharded ? 'the sharded adapter' : 'the adapter', async () => {
  const servers = await Promise.all([1, 2].map(async () => {
    const child = spawn(process.execPath, [new URL('server.mjs', import.meta.url).pathname], {
      env: { ...process.env, PORT: '0', HOST: host, SHARDED: sharded },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [port] = await once(createInterface({ input: child.stdout }), 'line');
    return { child, port };
  }));
  const store = await createClient({ url: process.env.REDIS_URL }).connect();
  const clients = await Promise.all([0, 0, 1, 1].map(async (server) => {
    const socket = io(`http://${host}:${servers[server].port}`, { transports: ['websocket'], reconnection: false });
    await once(socket, 'connect');
    const client = { socket, heard: [], waits: [] };
    socket.on('said', (text) => {
      client.heard.push(text);
      client.waits = client.waits.filter((heard) => !heard());
    });
    socket.on('question', (answer) => answer(socket.id));
    return client;
  }));

  after(async () => {
    store.destroy();
    for (const { socket } of clients) socket.close();
    await Promise.all(servers.map(({ child }) => (child.kill(), once(child, 'exit'))));
  });

  test('rooms over both servers', async () => {
    for (const room of rooms) await Promise.all(clients.map(({ socket }) => socket.emitWithAck('join', room)));
    if (sharded) for (const room of rooms) await bothListen(store, `socket.io#/#${room}#`);
    const texts = rooms.flatMap((room) => [`${room}: a`, `${room}: b`]);
    for (const text of texts) clients[0].socket.emit('say', text.split(':')[0], text);
    const sorted = [...texts].sort();
    for (const client of clients) {
      const all = await heard(client, texts.length);
      assert.deepEqual([...all].sort(), sorted);
      for (const room of rooms) assert.deepEqual(all.filter((text) => text.startsWith(`${room}:`)), [`${room}: a`, `${room}: b`]);
    }
  });

  test('all clients are asked, and all are known', async () => {
    const ids = clients.map(({ socket }) => socket.id).sort();
    assert.deepEqual((await clients[3].socket.emitWithAck('ask')).sort(), ids);
    assert.deepEqual((await clients[0].socket.emitWithAck('who', 'room-1')).sort(), ids);
  });

  test('a client of another server is moved into a room', async () => {
    await clients[2].socket.emitWithAck('join', 'alone');
    clients[0].socket.emit('move', 'alone', 'moved');
    for (;;) {
      const there = await clients[0].socket.emitWithAck('who', 'moved');
      if (there.length) {
        assert.deepEqual(there, [clients[2].socket.id]);
        break;
      }
    }
    clients[0].socket.emit('say', 'moved', 'hello');
    assert.deepEqual(await heard(clients[2], 1), ['hello']);
  });

  test('nobody has heard more than that', () => {
    for (const client of clients) assert.deepEqual(client.heard, []);
  });
});
