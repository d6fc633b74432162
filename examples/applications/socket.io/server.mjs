// socket.io: servers that reach each other's clients. memstore's pool needs no settings.
//
// npm install socket.io @socket.io/redis-adapter redis, then REDIS_URL=redis://... node server.mjs
import { createServer } from 'node:http';
import { createAdapter, createShardedAdapter } from '@socket.io/redis-adapter';
import { createClient } from 'redis';
import { Server } from 'socket.io';

const publisher = createClient({ url: process.env.REDIS_URL });
const subscriber = publisher.duplicate();
await Promise.all([publisher.connect(), subscriber.connect()]);

const http = createServer();
// Both do; the sharded one has channels (SSUBSCRIBE) for rooms, so that a server hears only of rooms that its clients are in.
const create = process.env.SHARDED ? createShardedAdapter : createAdapter;
const io = new Server(http, { adapter: create(publisher, subscriber) });
io.on('connection', (socket) => {
  socket.on('join', (room, joined) => (socket.join(room), joined()));
  socket.on('say', (room, text) => io.to(room).emit('said', text));
  // Answered by all clients of all servers.
  socket.on('ask', async (answered) => answered(await io.timeout(30_000).emitWithAck('question')));
  // Asked of all servers, as many as PUBSUB NUMSUB tells.
  socket.on('who', async (room, told) => told((await io.in(room).fetchSockets()).map((each) => each.id)));
  socket.on('move', (from, to) => io.in(from).socketsJoin(to));
});
http.listen(Number(process.env.PORT ?? 8080), process.env.HOST, () => console.log(http.address().port));
process.on('SIGTERM', () => process.exit());
