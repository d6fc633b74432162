// The views: what each asks for and shows. One is loaded while it is looked at, and only where its path is there.

const poolState = () => known.state && known.state.pools[known.pool];
const poolHistory = () => known.history && known.history.pools[known.pool];
const shardSeries = name => (poolHistory() || {}).of_shards?.[name];

/// A span whose words and class are made anew of the item.
const live = show => () => { const element = h("span"); return { element, update(item) { const [text, kind] = show(item); setText(element, text); element.className = kind || ""; } }; };
const sparkOf = values => () => { const chart = spark(); return { element: chart.element, update: item => chart.update(values(item)) }; };
const lastOf = (item, name) => { const series = shardSeries(item.name); return series ? last(series[name]) : null; };
/// A figure of a shard with its small chart.
const charted = (name, kind) => () => {
  const chart = spark(), text = h("span");
  return { element: h("span", { class: "charted" }, chart.element, text), update(shard) { chart.update((shardSeries(shard.name) || {})[name]); setText(text, shown(lastOf(shard, name), kind)); } };
};
const STATES = { up: "good", ejected: "bad", down: "bad" };

// --- overview ---

const cards = CARDS.map(card);
const needsAttention = table($("attention"), "Shards that need attention", [
  { title: "Shard", head: true, text: shard => shard.name },
  { title: "State", figure: "healthy", node: live(shard => [shard.state, `badge ${STATES[shard.state] || "warn"}`]) },
  { title: "Since", text: shard => shard.since ? span(known.state.time - shard.since) : "–" },
  { title: "Reason", wide: true, text: shard => shard.reason || "–" },
], { key: shard => shard.name, most: 20, empty: "All shards are up." });
const failures = table($("failures"), "Failures of shards by reason", [
  { title: "Reason", head: true, text: item => item.reason },
  { title: "Now", number: true, figure: "shard_failures", text: item => shown(item.now, "rate") },
  { title: "In 15 min", number: true, text: item => shown(item.sum, "count") },
  { title: "Course", node: sparkOf(item => item.values) },
], { key: item => item.reason, empty: "None in the last 15 minutes." });

function showOverview() {
  const history = poolHistory();
  if (history) {
    CARDS.forEach((figure, place) => cards[place].update(figure.of === "process" ? known.history.process : history.series));
    const seconds = known.history.interval / 1000;
    const items = Object.entries(history.failures).map(([reason, values]) => ({ reason, values, now: last(values), sum: Math.round(values.reduce((sum, value) => sum + (value || 0) * seconds, 0)) }));
    failures.update(items.filter(item => item.sum > 0).sort((one, other) => other.sum - one.sum));
  }
  const state = poolState();
  if (state) needsAttention.update(state.shards.filter(shard => shard.state !== "up"));
}

// --- shards ---

const shardTable = table($("shards"), "Shards of the pool", [
  { title: "Shard", head: true, by: shard => shard.name, text: shard => shard.name },
  { title: "Address", mono: true, by: shard => shard.address, text: shard => shard.address },
  { title: "State", figure: "healthy", by: shard => shard.state, node: live(shard => [shard.state, `badge ${STATES[shard.state] || "warn"}`]) },
  { title: "Share of keys", isFigure: true, by: shard => shard.share, node: () => { const bar = h("i"), text = h("span"); return { element: h("span", {}, h("span", { class: "bar", "aria-hidden": "true" }, bar), text), update(shard) { bar.style.setProperty("width", `${Math.min(100, (shard.share || 0) * 100)}%`); setText(text, isNumber(shard.share) ? shown(shard.share, "share") : "–"); } }; } },
  { title: "Requests", number: true, figure: "shard_requests", by: shard => lastOf(shard, "requests"), node: charted("requests", "rate") },
  { title: "Latency p50", number: true, figure: "shard_latency", by: shard => lastOf(shard, "latency_p50"), text: shard => shown(lastOf(shard, "latency_p50"), "seconds") },
  { title: "p99", number: true, figure: "shard_latency", by: shard => lastOf(shard, "latency_p99"), node: charted("latency_p99", "seconds") },
  { title: "Failures", number: true, figure: "shard_failures", by: shard => lastOf(shard, "failures"), text: shard => shown(lastOf(shard, "failures"), "rate") },
  { title: "In flight", number: true, figure: "shard_in_flight", by: shard => shard.metrics.in_flight_requests, text: shard => shown(shard.metrics.in_flight_requests, "count") },
  { title: "Queued", number: true, figure: "shard_queued", by: shard => shard.metrics.queued_requests, text: shard => shown(shard.metrics.queued_requests, "count") },
  { title: "Connections", number: true, figure: "connections", by: shard => shard.metrics.connections, text: shard => shown(shard.metrics.connections, "count") },
], { key: shard => shard.name, order: 0 });

function showShards() {
  const state = poolState();
  if (!state) return;
  const search = $("shards-search").value.toLowerCase(), down = $("shards-down").checked;
  // Of many shards not all are told unless somebody looks for one.
  if (search && state.shards.length < state.shards_total && known.all?.pool !== known.pool) { run(loadAll); return; }
  const told = search && known.all?.pool === known.pool ? known.all.shards : state.shards;
  const shards = told.filter(shard => (!search || shard.name.toLowerCase().includes(search) || shard.address.toLowerCase().includes(search)) && (!down || shard.state !== "up"));
  const followed = Object.keys((poolHistory() || {}).of_shards || {}).length;
  const some = followed < state.shards_total ? `; rates and latencies of the ${plain.format(followed)} that fail or take most time` : "";
  setText($("shards-count"), `${plain.format(shards.length)} of ${plain.format(state.shards_total)} shards${some}`);
  shardTable.update(shards);
}

/// All shards of a pool that has too many to be told of every time.
async function loadAll() {
  const pool = known.pool;
  known.all = { pool, shards: (await ask(`/status?${query({ pool, clients: 0 })}`)).pools[0].shards };
  showShards();
}

// --- owner of a key ---

const facts = (entries, attributes) => h("dl", { class: "facts", ...attributes }, entries.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
const words = value => Array.isArray(value) && value.every(item => typeof item === "string") ? value.join(", ") : value !== null && typeof value === "object" ? JSON.stringify(value) : String(value);

async function findOwner(event) {
  event.preventDefault();
  try {
    const found = await ask(`/route?${query({ pool: known.pool, key: $("route-key").value })}`);
    const order = ["shard", "address", "healthy"], rank = name => order.includes(name) ? order.indexOf(name) : order.length;
    fill($("route"), facts(Object.entries(found).filter(([, value]) => value !== null).sort(([one], [other]) => rank(one) - rank(other)).map(([name, value]) => [name.replaceAll("_", " "), words(value)])));
  } catch (error) { fill($("route"), h("p", { class: "bad" }, error.message)); }
}

// --- cluster ---

const slotsOf = shard => (shard.node?.slots || []).reduce((sum, [first, end]) => sum + end - first + 1, 0);
const clusterTable = table($("cluster"), "Nodes of the cluster", [
  { title: "Node", head: true, by: shard => shard.name, text: shard => shard.name },
  { title: "Role", by: shard => shard.node?.replica_of || "", text: shard => shard.node?.replica_of ? `replica of ${nameOfNode(shard.node.replica_of)}` : "primary" },
  { title: "State", figure: "healthy", node: live(shard => [shard.state, `badge ${STATES[shard.state] || "warn"}`]) },
  { title: "Slots", number: true, figure: "slots", by: slotsOf, text: shard => shown(slotsOf(shard), "count") },
  { title: "Epoch", number: true, figure: "node_epoch", by: shard => shard.node?.epoch, text: shard => shown(shard.node?.epoch, "count") },
  { title: "Ranges of slots", wide: true, mono: true, text: shard => (shard.node?.slots || []).slice(0, 40).map(([first, end]) => first === end ? first : `${first}–${end}`).join(" ") + ((shard.node?.slots || []).length > 40 ? " …" : "") || "–" },
  { title: "Node id", mono: true, text: shard => shard.node?.id || "–" },
], { key: shard => shard.name, order: 0 });
const nameOfNode = id => (poolState().shards.find(shard => shard.node?.id === id) || {}).name || id;

function showCluster() {
  const state = poolState();
  if (!state || !state.cluster) return;
  const { slots_covered: covered, slots_total: total, redirects, refreshes } = state.cluster;
  const bar = h("div", { class: "slots", role: "img", "aria-label": `${covered} of ${total} slots have an owner` });
  const part = h("span", { class: "one" });
  part.style.setProperty("width", `${covered / total * 100}%`);
  bar.append(part);
  if (!$("cluster-facts")) {
    fill($("cluster-summary"), h("div", { id: "cluster-bar" }), facts([
      ["Slots with an owner", h("span", {}, h("span", { id: "cluster-covered" }), " ", figureButton("covered"))],
      ["Redirects", h("span", {}, h("span", { id: "cluster-redirects" }), " ", figureButton("redirects"))],
      ["Refreshes of the slot map", h("span", { id: "cluster-refreshes" })],
    ], { id: "cluster-facts" }), h("h3", {}, "Nodes"));
  }
  fill($("cluster-bar"), bar);
  setText($("cluster-covered"), `${plain.format(covered)} of ${plain.format(total)}`);
  setText($("cluster-redirects"), Object.entries(redirects || {}).map(([kind, count]) => `${kind.replaceAll("_", " ")} ${plain.format(count)}`).join(", "));
  setText($("cluster-refreshes"), refreshes ? `${plain.format(refreshes.success)} succeeded, ${plain.format(refreshes.failure)} failed` : "–");
  clusterTable.update(state.shards);
}

// --- clients ---

let clientsAt = null;
const hostTable = table($("clients-hosts"), "Clients by address", [
  { title: "Address", head: true, mono: true, node: () => { const button = h("button", { type: "button", class: "metric" }); button.addEventListener("click", () => { clientsAt = clientsAt === button.textContent ? null : button.textContent; run(loadClients); }); return { element: button, update(host) { setText(button, host.address); button.setAttribute("aria-pressed", String(clientsAt === host.address)); } }; } },
  { title: "Clients", number: true, by: host => host.clients, text: host => shown(host.clients, "count") },
  { title: "Shortest idle", number: true, by: host => host.idle_min, text: host => span(host.idle_min) },
  { title: "Longest idle", number: true, by: host => host.idle_max, text: host => span(host.idle_max) },
  { title: "Oldest", number: true, by: host => host.age_max, text: host => span(host.age_max) },
  { title: "Buffers", number: true, by: host => host.memory, text: host => shown(host.memory, "bytes") },
], { key: host => host.address, order: 1, downwards: true, most: 50, empty: "No clients." });
const clientTable = table($("clients"), "Clients one by one", [
  { title: "Id", head: true, text: client => String(client.id) },
  { title: "Address", mono: true, text: client => client.address },
  { title: "User", text: client => client.user || "–" },
  { title: "Name", text: client => client.name || client.library || "–" },
  { title: "Idle", number: true, text: client => span(client.idle) },
  { title: "Age", number: true, text: client => span(client.age) },
  { title: "Database", number: true, text: client => String(client.database) },
  { title: "Flags", mono: true, text: client => client.flags },
  { title: "Buffers", number: true, text: client => shown(client.memory, "bytes") },
  { title: "End", node: client => { const button = h("button", { type: "button", class: "danger kill", "aria-label": `Disconnect client ${client.id}`, onclick: () => killClient(client) }, "Disconnect"); return { element: button, update() { button.disabled = !known.token; } }; } },
], { key: client => String(client.id), empty: "No clients." });

async function loadClients() {
  const listing = await ask(`/clients?${query({ pool: known.pool, sort: $("clients-sort").value, address: clientsAt, limit: 100 })}`);
  setText($("clients-count"), `${counted(listing.count, "client")} at ${counted(listing.addresses, "address")}`);
  setText($("clients-title"), clientsAt ? `Those at ${clientsAt} (${plain.format(listing.matching)})` : "One by one");
  // What asks the workers of many clients is asked less often.
  due.set(VIEWS.find(view => view.id === "clients"), Date.now() + Math.max(15000, listing.count * 3));
  hostTable.update(listing.by_address);
  clientTable.update(listing.clients);
}

// --- slow log and hot keys: they tell of keys, so they may need the token ---

/// Loads a view of which the proxy may say that it is not for everybody; then that stands in its place.
const guarded = (id, load) => async () => {
  const note = $(`${id}-note`), parts = $(`${id}-parts`);
  try {
    await load();
    note.hidden = true;
    parts.hidden = false;
  } catch (error) {
    if (error.status !== 403) throw error;
    note.hidden = false;
    parts.hidden = true;
    setText(note, `The proxy tells this with the token only: ${error.message}.`);
  }
};
const micros = value => shown(isNumber(value) ? value / 1e6 : null, "seconds");

const slowTable = table($("slow"), "Slow requests", [
  { title: "Time", by: entry => entry.unix_microseconds, text: entry => moment(entry.unix_microseconds / 1000) },
  { title: "Total", number: true, by: entry => entry.microseconds.total, text: entry => micros(entry.microseconds.total) + (entry.timed_out ? " (timed out)" : "") },
  { title: "Queued", number: true, by: entry => entry.microseconds.queued, text: entry => micros(entry.microseconds.queued) },
  { title: "On the shard", number: true, by: entry => entry.microseconds.shard, text: entry => micros(entry.microseconds.shard) },
  { title: "Merged", number: true, by: entry => entry.microseconds.merged, text: entry => micros(entry.microseconds.merged) },
  { title: "For the client", number: true, by: entry => entry.microseconds.client, text: entry => micros(entry.microseconds.client) },
  { title: "Shard", by: entry => entry.shard, text: entry => entry.shard },
  { title: "Client", mono: true, by: entry => entry.client.address, text: entry => [entry.client.address, entry.client.name, entry.client.user].filter(Boolean).join(" ") },
  { title: "Request", head: true, wide: true, mono: true, text: entry => entry.command.join(" ") + (entry.error ? ` (${entry.error})` : "") },
], { key: entry => String(entry.id), order: 0, downwards: true, empty: "No request was slow." });
const loadSlow = guarded("slow", async () => {
  const { entries, slower_than_microseconds: least, entries_max: most } = (await ask("/slow")).pools[known.pool];
  setText($("slow-about"), least < 0 ? "Nothing is logged (slowlog_log_slower_than is negative)." : `Requests that took longer than ${micros(least)} (slowlog_log_slower_than); the last ${plain.format(most)} are kept (slowlog_max_len).`);
  slowTable.update(entries);
});

const hotTable = table($("hot"), "Keys that are used most", [
  { title: "Key", head: true, wide: true, mono: true, by: key => key.key, text: key => key.key + (key.key_bytes > key.key.length ? " …" : "") },
  { title: "Shard", by: key => key.shard, text: key => key.shard || "–" },
  { title: "Share of accesses", number: true, by: key => key.share, text: key => shown(key.share, "share") },
  { title: "Accesses", number: true, by: key => key.accesses_per_second, text: key => shown(key.accesses_per_second, "rate") },
  { title: "Reads", number: true, by: key => key.reads, text: key => shown(key.reads, "share") },
], { key: key => key.key, order: 2, downwards: true, empty: "No key stands out." });
const large = (host, caption) => table($(host), caption, [
  { title: "Command", head: true, text: item => item.command },
  { title: "Key", wide: true, mono: true, text: item => item.key === null ? "–" : item.key + (item.keys > 1 ? ` and ${item.keys - 1} more` : "") },
  { title: "Size", number: true, by: item => item.bytes, text: item => shown(item.bytes, "bytes") },
  { title: "Shard", by: item => item.shard, text: item => item.shard || "–" },
  { title: "Ago", number: true, by: item => item.seconds_ago, text: item => span(item.seconds_ago) },
], { order: 2, downwards: true });
const largeRequests = large("large-requests", "Largest requests"), largeReplies = large("large-replies", "Largest replies");
const loadHot = guarded("hot", async () => {
  const hot = (await ask(`/hot?${query({ pool: known.pool, count: 50 })}`)).pools[known.pool];
  setText($("hot-about"), hot.sample ? `Of one in ${plain.format(hot.sample)} requests, ${plain.format(hot.sampled_requests)} in the last ${span(hot.seconds)}.` : "Nothing is sampled.");
  hotTable.update(hot.keys);
  largeRequests.update(hot.large_requests);
  largeReplies.update(hot.large_replies);
});

// --- process ---

const RESULTS = { applied: "good", failed: "bad" };
const reloadTable = table($("reloads"), "Reloads", [
  { title: "Time", head: true, text: reload => moment(reload.time * 1000) },
  { title: "Trigger", text: reload => reload.trigger },
  { title: "Result", node: live(reload => [reload.result, `badge ${RESULTS[reload.result] || "quiet"}`]) },
  { title: "Times", number: true, text: reload => shown(reload.times, "count") },
  { title: "Changes or reason", wide: true, text: reload => reload.error || [...reload.changes.map(changeText), ...(reload.more_changes ? [`and ${reload.more_changes} more`] : [])].join("; ") || "–" },
], { empty: "None since the start." });

const changeText = ({ pool, what, before, after }) => `${pool ? `${pool}: ` : ""}${what} ${before === null ? `${after} added` : after === null ? `${before} removed` : `${before} → ${after}`}`;

function showProcess() {
  if (!known.state) return;
  const { process, reloads } = known.state, { config, memory } = process;
  const values = {
    version: process.version, uptime: span(process.uptime_seconds), workers: String(process.workers.length),
    generation: `${config.generation}, loaded ${moment(config.loaded * 1000)}`, digest: config.digest,
    reload: config.reload_error || "the last one succeeded", draining: process.draining ? "yes" : "no",
    held: `${shown(memory.held_bytes, "bytes")} of ${shown(memory.max_bytes, "bytes")} for clients and shards`, resident: shown(memory.resident_bytes, "bytes"),
    files: `${shown(process.open_files, "count")} of ${shown(process.open_files_max, "count")}, ${shown(process.open_files_reserved, "count")} of them reserved for shards`,
    lookups: `${shown(process.lookups.success, "count")} succeeded, ${shown(process.lookups.failure, "count")} failed`,
  };
  if (!$("process").children.length) {
    const rows = [["Version", "version"], ["Uptime", "uptime", "uptime"], ["Workers", "workers", "busy"], ["Generation", "generation", "generation"], ["Digest", "digest", "digest"], ["Last reload", "reload", "reload_error"], ["Draining", "draining", "draining"], ["Memory held", "held", "held"], ["Resident memory", "resident"], ["File descriptors", "files", "files"], ["Host name lookups", "lookups", "lookups"]];
    fill($("process"), rows.map(([title, name, figure]) => [h("dt", {}, title), h("dd", {}, h("span", { id: `process-${name}` }), " ", figure ? figureButton(figure) : null)]));
  }
  for (const [name, value] of Object.entries(values)) setText($(`process-${name}`), value);
  $("process-reload").className = config.reload_error ? "bad" : "";
  reloadTable.update([...reloads].reverse());
}

const VIEWS = [
  { id: "overview", title: "Overview", show: showOverview },
  { id: "shards", title: "Shards", show: showShards },
  { id: "route", title: "Owner of a key", path: "/route" },
  { id: "cluster", title: "Cluster", show: showCluster, there: () => !!(poolState() || {}).cluster },
  { id: "clients", title: "Clients", path: "/clients", load: loadClients, every: 15000 },
  { id: "slow", title: "Slow log", path: "/slow", load: loadSlow, every: 10000 },
  { id: "hot", title: "Hot keys", path: "/hot", load: loadHot, every: 10000 },
  { id: "config", title: "Configuration", path: "/config", load: loadConfig, every: 60000 },
  { id: "process", title: "Process", show: showProcess },
];

// --- configuration ---

const configTable = table($("config"), "Settings in force", [
  { title: "Section", head: true, by: item => item.section, text: item => item.section },
  { title: "Setting", mono: true, by: item => item.name, text: item => item.name },
  { title: "Value", wide: true, mono: true, text: item => item.value },
  { title: "From", wide: true, by: item => item.source, text: item => item.source },
], { key: item => `${item.section} ${item.name}`, most: 400 });
let settings = [];
async function loadConfig() { settings = settingsOf(await ask("/config")); showConfig(); }
function showConfig() {
  const search = $("config-search").value.toLowerCase(), set = $("config-set").checked;
  configTable.update(settings.filter(item => (!search || `${item.section} ${item.name} ${item.value}`.toLowerCase().includes(search)) && (!set || item.source !== "default")));
}
