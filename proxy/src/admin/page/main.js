// What is asked when, and which view is shown.

/// Shards that are told of every time.
const SHARDS_TOLD = 200;

/// How the process and the pool that is looked at are. Elsewhere than on the proxy's machine that takes the token.
async function loadState() {
  try {
    const answer = await ask(`/status?${query({ pool: known.pool, shards: SHARDS_TOLD, clients: 0 })}`);
    known.state = { ...answer, pools: Object.fromEntries(answer.pools.map(pool => [pool.name, pool])) };
    known.denied = null;
  } catch (error) {
    if (error.status !== 403) throw error;
    if (known.token) { lock(); tell("The token is not right any more; the page is read-only."); }
    known.denied = error.message;
    known.state = null;
  }
}

/// What /config says, a row for each setting: whatever has a value and where that is from, below the names that lead there.
function settingsOf(answer) {
  const rows = [];
  const walk = (node, path) => {
    if (node === null || typeof node !== "object") return;
    const source = node.source ?? node.from ?? node.origin;
    if ("value" in node && source !== undefined) {
      const names = node.name === undefined ? path : [...path.slice(0, -1), node.name];
      rows.push({ section: names.slice(0, -1).filter(name => !["settings", "pools"].includes(name)).join(" ") || "process", name: String(names.at(-1)), value: node.value === null ? "–" : words(node.value), source: node.line ? `${words(source)}, line ${node.line}` : words(source) });
      return;
    }
    for (const [name, child] of Object.entries(node)) walk(child, [...path, Array.isArray(node) && child?.name !== undefined && !("value" in child) ? child.name : name]);
  };
  walk(answer, []);
  return rows;
}

/// Adds the samples that have come since the last time.
async function loadHistory() {
  const before = known.history, pool = known.pool;
  const goesOn = before && before.pool === pool;
  const answer = await ask(`/history?${query({ pool, since: goesOn ? before.to : null })}`);
  if (known.pool !== pool) return;
  const joins = goesOn && answer.from === before.to;
  if (goesOn && !joins) { known.history = null; return loadHistory(); }
  const { samples_max: max, interval_ms: interval, time_ms: time, to } = answer;
  const extended = (old, series) => Object.fromEntries(Object.entries(series).map(([name, values]) => {
    const whole = joins && old && old[name] ? [...old[name], ...values] : joins ? [...Array(before.length).fill(null), ...values] : values;
    return [name, whole.slice(-max)];
  }));
  const length = Math.min(max, (joins ? before.length : 0) + to - answer.from);
  const pools = {};
  for (const [name, series] of Object.entries(answer.pools)) {
    const old = joins ? before.pools[name] : null;
    const of_shards = series.of_shards && Object.fromEntries(Object.entries(series.of_shards).map(([shard, own]) => [shard, extended(old?.of_shards?.[shard], own)]));
    pools[name] = { shards: series.shards, series: extended(old?.series, series.series), failures: extended(old?.failures, series.failures), of_shards };
  }
  known.history = { pool, to, max, interval, time, length, process: extended(before?.process, answer.process), pools };
}

/// Something that may fail, which is told above the views.
let troubles = 0;
async function run(what) {
  try { await what(); $("trouble").hidden = true; troubles = 0; return 0; } catch (error) {
    troubles += 1;
    $("trouble").hidden = false;
    if (!(error instanceof Refused)) {
      setText($("trouble"), `${clock(Date.now())}: this page has a mistake: ${error.message}. The figures below are older.`);
      throw error;
    }
    setText($("trouble"), `${clock(Date.now())}: ${error.message}. ${error.status === 0 ? "The figures below are older." : ""}`);
    return Math.max(error.wait * 1000, 0);
  }
}

function choosePool() {
  const names = Object.keys(known.history.pools);
  const select = $("pool");
  if ([...select.options].map(option => option.value).join("\n") !== names.join("\n")) fill(select, names.map(name => h("option", { value: name }, name)));
  const before = known.pool;
  if (!names.includes(before)) known.pool = names[0] ?? null;
  select.value = known.pool;
  $("pool-label").hidden = names.length < 2;
  return known.pool !== before;
}

function showState() {
  const badge = (text, kind) => h("span", { class: `badge ${kind}` }, text);
  const parts = [], pool = poolState();
  if (known.state) {
    const { draining, config } = known.state.process;
    if (draining) parts.push(badge("draining", "warn"));
    if (config.reload_error) parts.push(badge("reload failed", "bad"));
    if (pool) {
      const kind = pool.shards_up === pool.shards_total ? "good" : "bad";
      parts.push(badge(`${plain.format(pool.shards_up)} of ${plain.format(pool.shards_total)} shards up`, kind));
      if (pool.servers_error) parts.push(badge("list of servers not refreshed", "warn"));
      if (!pool.listening) parts.push(badge("not listening", "bad"));
      parts.push(h("span", {}, `${pool.protocol} at ${pool.listen}`));
    }
  } else if (known.denied) {
    parts.push(badge("state and clients need the token", "warn"), h("span", {}, known.denied));
  }
  const text = parts.map(part => part.textContent).join("|");
  if ($("state").dataset.text !== text) { $("state").dataset.text = text; fill($("state"), parts); }
  document.title = `${pool && pool.shards_up < pool.shards_total ? "! " : ""}memstore – ${known.pool ?? "no pool"}`;
}

const isThere = view => (!view.path || (known.paths.has(view.path) && !known.denied)) && (!view.there || view.there());
let shownViews = "";
function showNav() {
  const there = VIEWS.filter(isThere);
  const wanted = location.hash.replace(/^#(view-)?/, "");
  const view = there.find(view => view.id === wanted) || there[0];
  const text = there.map(view => view.id).join(" ");
  if (text !== shownViews) {
    shownViews = text;
    fill($("nav"), there.map(view => h("li", {}, h("a", { href: `#view-${view.id}`, id: `nav-${view.id}` }, view.title))));
  }
  for (const other of VIEWS) {
    const link = $(`nav-${other.id}`);
    if (link && other === view) { link.setAttribute("aria-current", "page"); if (known.view !== view) link.scrollIntoView({ block: "nearest", inline: "nearest" }); } else if (link) link.removeAttribute("aria-current");
    $(`view-${other.id}`).hidden = other !== view;
  }
  const isNew = known.view !== view;
  known.view = view;
  return isNew;
}

/// Views that ask for something of their own, when they are due.
const due = new Map();
async function showView(now) {
  const isNew = showNav();
  const view = known.view;
  if (view.show) view.show();
  if (view.load && (isNew || now || (due.get(view) || 0) <= Date.now())) {
    due.set(view, Date.now() + view.every);
    await view.load();
  }
}

/// What takes the proxy long is asked for less often: at most a thirtieth of the time.
let stateDue = 0;
async function refresh(all) {
  await loadHistory();
  // Its shards are told of the pool that is asked for.
  if (choosePool()) { all = true; await loadHistory(); }
  if (all || stateDue <= Date.now()) {
    const begin = Date.now();
    await loadState();
    stateDue = Date.now() + Math.max(4000, (Date.now() - begin) * 30);
    showState();
  }
  await showView(all);
  setText($("updated"), `updated ${clock(Date.now())}`);
}

const TICK = 5000;
let timer = null, isBusy = false;
async function tick() {
  if (isBusy) return;
  isBusy = true;
  clearTimeout(timer);
  let wait = 0;
  try {
    if (!document.hidden) wait = await run(() => refresh(false));
  } finally {
    // Whatever was wrong, it goes on.
    isBusy = false;
    timer = setTimeout(tick, Math.max(TICK, wait, troubles ? TICK * Math.min(6, troubles) : 0));
  }
}

async function start() {
  fill($("cards"), cards.map(card => card.element));
  fill($("clients-figure"), figureButton("clients"));
  const index = await request("/", { headers: { Accept: "text/plain" } });
  known.paths = new Set(index.split("\n").map(line => line.split(/\s+/)[1]).filter(Boolean));
  $("view-overview").hidden = false;
}

$("pool").addEventListener("change", () => { known.pool = $("pool").value; known.history = null; known.state = null; known.all = null; clientsAt = null; run(() => refresh(true)); });
addEventListener("hashchange", () => { tell(""); run(() => showView(true)); $("main").focus({ preventScroll: true }); scrollTo(0, 0); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) tick(); });
addEventListener("resize", () => { if (known.history) cards.forEach(card => card.draw()); });
for (const id of ["shards-search", "shards-down"]) $(id).addEventListener("input", showShards);
for (const id of ["config-search", "config-set"]) $(id).addEventListener("input", showConfig);
for (const id of ["shards-tools", "config-tools"]) $(id).addEventListener("submit", event => event.preventDefault());
$("clients-tools").addEventListener("submit", event => { event.preventDefault(); run(loadClients); });
$("clients-sort").addEventListener("change", () => run(loadClients));
$("route-form").addEventListener("submit", findOwner);
showLock();
(async () => { while (await run(start) || troubles) await new Promise(done => setTimeout(done, TICK)); tick(); })();
