// What the figures are: their series in /history, their metrics, and the sections of the runbook that go with them.

const CARDS = [
  { id: "requests", title: "Requests", kind: "rate", series: [["requests", "requests"]],
    metrics: ["memstore_requests_total"], runbook: ["MemstoreWorkerSaturated"],
    about: "Requests read from clients of the pool." },
  { id: "latency", title: "Latency of shards", kind: "seconds", lead: 2, series: [["p50", "latency_p50"], ["p90", "latency_p90"], ["p99", "latency_p99"]],
    metrics: ["memstore_shard_response_duration_seconds"], runbook: ["MemstoreShardSlow", "MemstoreQueueFull"],
    about: "From queueing a request to its response, over all shards of the pool. Half, 90 % and 99 % of the requests took at most so long; values between the bounds of the histogram, which are powers of two from 64 µs on, are interpolated." },
  { id: "errors", title: "Errors", kind: "rate", sum: true, series: [["failed", "failed"], ["refused", "refused"]],
    metrics: ["memstore_requests_failed_total", "memstore_requests_refused_total"], runbook: ["MemstoreRequestsFailing", "MemstoreRequestsRefused"],
    about: "Failed: answered with an error because a shard could not serve the request. Refused: by the proxy itself, such as commands that are not supported." },
  { id: "clients", title: "Clients", kind: "count", series: [["connected", "clients"]],
    metrics: ["memstore_client_connections"], runbook: ["MemstoreClientsRefused", "MemstoreClientsCutOff"],
    about: "Open client connections." },
  { id: "queues", title: "Queues of shards", kind: "count", series: [["in flight", "in_flight"], ["queued", "queued"]],
    metrics: ["memstore_shard_in_flight_requests", "memstore_shard_queued_requests"], runbook: ["MemstoreQueueFull"],
    about: "Requests written to shards and not yet answered, and requests that are not written yet." },
  { id: "traffic", title: "Traffic of clients", kind: "bytes_rate", series: [["sent", "sent_bytes"], ["received", "received_bytes"]],
    metrics: ["memstore_client_sent_bytes_total", "memstore_client_received_bytes_total"], runbook: ["MemstoreWorkerSaturated"],
    about: "Bytes written to clients, and read from them." },
  { id: "workers", title: "Workers busy", kind: "share", of: "process", ceiling: 1, series: [["busiest", "worker_busy_max"], ["mean", "worker_busy_mean"]],
    metrics: ["memstore_worker_busy_seconds_total"], runbook: ["MemstoreWorkerSaturated"],
    about: "Share of the time in which workers were busy. A client stays on its worker, so the busiest one counts." },
  { id: "memory", title: "Memory in use", kind: "bytes", of: "process", series: [["held", "memory_held_bytes"]],
    metrics: ["memstore_memory_held_bytes", "memstore_memory_max_bytes"], runbook: ["MemstoreClientsCutOff"],
    about: "Bytes held for client and shard data, these figures included. The limit is memory_max." },
];

/// Figures in tables and texts.
const FIGURES = {
  healthy: { metric: "memstore_shard_healthy", runbook: ["MemstoreShardDown", "MemstoreShardUnreachable", "MemstoreShardFlapping"], about: "A shard is up if its last request or probe was answered, down if it was not, and ejected while it is out of the ring." },
  clients: { metric: "memstore_client_connections", runbook: ["MemstoreClientsRefused", "MemstoreClientsCutOff"], about: "Open client connections." },
  connections: { metric: "memstore_shard_connections", runbook: ["MemstoreShardUnreachable"], about: "Open connections to the shard." },
  shard_requests: { metric: "memstore_shard_requests_total", runbook: ["MemstoreShardSlow"], about: "Requests sent to the shard, including fragments of split requests." },
  shard_latency: { metric: "memstore_shard_response_duration_seconds", runbook: ["MemstoreShardSlow"], about: "From queueing a request to its response." },
  shard_queued: { metric: "memstore_shard_queued_requests", runbook: ["MemstoreQueueFull"], about: "Requests queued and not yet written to the shard." },
  shard_in_flight: { metric: "memstore_shard_in_flight_requests", runbook: ["MemstoreShardSlow"], about: "Requests written to the shard and not yet answered." },
  shard_failures: { metric: "memstore_shard_failures_total", runbook: ["MemstoreShardDown", "MemstoreRequestsFailing"], about: "Requests that the shard could not serve, by reason." },
  generation: { metric: "memstore_config_generation", runbook: ["MemstoreConfigsDisagree"], about: "Generation of the active configuration, counted from 1." },
  digest: { metric: "memstore_config_info", runbook: ["MemstoreConfigsDisagree"], about: "Digest of the active configuration; that of all replicas should be the same." },
  reload_error: { metric: "memstore_config_reload_failed", runbook: ["MemstoreReloadFailing"], about: "The configuration on disk could not be loaded; the previous one is still active." },
  slots: { metric: "memstore_cluster_slots", runbook: ["MemstoreClusterSlotsUncovered"], about: "Slots owned by the node." },
  covered: { metric: "memstore_cluster_slots_covered", runbook: ["MemstoreClusterSlotsUncovered", "MemstoreClusterSilent"], about: "Slots with a known owner, of 16,384." },
  redirects: { metric: "memstore_cluster_redirects_total", runbook: ["MemstoreClusterRedirects"], about: "Redirects from cluster nodes, by kind." },
  node_epoch: { metric: "memstore_cluster_epoch", runbook: ["MemstoreClusterSlotsUncovered"], about: "Configuration epoch of the node; the highest one wins conflicting claims to a slot." },
  uptime: { metric: "memstore_uptime_seconds", runbook: ["MemstoreProxyRestarts"], about: "Time since the process started." },
  busy: { metric: "memstore_worker_busy_seconds_total", runbook: ["MemstoreWorkerSaturated"], about: "Time the workers were busy." },
  held: { metric: "memstore_memory_held_bytes", runbook: ["MemstoreClientsCutOff"], about: "Memory in use for client and shard data; the limit is memory_max." },
  files: { metric: "memstore_open_files_reserved", runbook: ["MemstoreClientsRefused"], about: "File descriptors reserved for shards, probes and files; clients are refused before these are used." },
  lookups: { metric: "memstore_lookups_total", runbook: ["MemstoreLookupsFailing"], about: "Host name lookups, by result." },
  draining: { metric: "memstore_draining", runbook: ["MemstoreProxyRestarts"], about: "The process accepts no new clients and ends." },
};

/// A link to what a metric is and what to do about it.
const metricButton = (metric, about, runbook, text = metric) => h("button", { type: "button", class: "metric", title: metric, "aria-label": `About ${metric}`, onclick: () => explain(metric, about, runbook) }, text);
/// The same for a figure in a table or text; above a column there is no room for the whole name.
function figureButton(name, isShort) {
  const { metric, about, runbook } = FIGURES[name];
  return metricButton(metric, about, runbook, isShort ? metric.replace(/^memstore_(shard_|cluster_)?(response_)?/, "").replace(/(.)_requests$/, "$1") : metric);
}

let runbookText = null;
async function explain(metric, about, runbook) {
  setText($("about-title"), metric);
  const body = $("about-body");
  fill(body, h("p", {}, about), h("p", {}, h("a", { href: `/metrics#:~:text=${encodeURIComponent(metric)}` }, "All metrics"), " · ", h("a", { href: "/runbook" }, "Whole runbook")));
  $("about").showModal();
  body.scrollTop = 0;
  try {
    runbookText = runbookText || await request("/runbook");
    for (const section of runbook) {
      const text = runbookText.split(`\n## ${section}\n`)[1];
      if (text) body.append(h("h3", { id: section }, section), ...paragraphs(text.split("\n## ")[0]));
    }
  } catch (error) {
    body.append(h("p", { class: "bad" }, `The runbook cannot be read: ${error.message}`));
  }
}

/// What the runbook needs of Markdown: paragraphs, lists, code, strong words.
function paragraphs(text) {
  const blocks = text.trim().split(/\n\n+/);
  return blocks.map(block => {
    if (block.startsWith("    ")) return h("pre", {}, block.replace(/^ {4}/gm, ""));
    if (block.startsWith("- ")) return h("ul", {}, block.split(/\n(?=- )/).map(item => h("li", {}, inline(item.slice(2).replace(/\n\s*/g, " ")))));
    return h("p", {}, inline(block.replace(/\n/g, " ")));
  });
}
const inline = text => text.split(/(`[^`]+`|\*\*[^*]+\*\*|\[[^\]]+\]\([^)]+\))/).map(part =>
  part.startsWith("`") ? h("code", {}, part.slice(1, -1)) : part.startsWith("**") ? h("strong", {}, part.slice(2, -2)) : /^\[[^\]]+\]\(/.test(part) ? part.slice(1).split("]")[0] : part);
