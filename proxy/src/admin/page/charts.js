// Charts: inline SVG of the series of the last 15 minutes, redrawn in place.

const COLOURS = ["one", "two", "three"];
const seconds15 = () => known.history ? known.history.max * known.history.interval / 1000 : 900;

/// The path of a series over `length` places; gaps where there is no figure.
function line(values, length, width, height, top, ceiling) {
  let path = "", pen = false;
  const first = length - values.length;
  values.forEach((value, place) => {
    if (!isNumber(value)) { pen = false; return; }
    const x = ((first + place) / Math.max(1, length - 1)) * width;
    const y = top + (1 - value / ceiling) * (height - top);
    const alone = !pen && !isNumber(values[place + 1]);
    path += `${pen ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}${alone ? "h0.5" : ""}`;
    pen = true;
  });
  return path;
}
const maximum = lists => lists.reduce((most, list) => list.reduce((most, value) => isNumber(value) && value > most ? value : most, most), 0);
const last = list => { for (let place = list.length - 1; place >= 0 && place >= list.length - 2; place -= 1) if (isNumber(list[place])) return list[place]; return null; };

/// A ceiling that is a round number.
function ceilingOf(value, kind) {
  if (value <= 0) return kind === "seconds" ? 0.001 : 1;
  const base = kind === "bytes" || kind === "bytes_rate" ? 1024 ** Math.floor(Math.log(value) / Math.log(1024)) : 1;
  const scaled = value / base, power = 10 ** Math.floor(Math.log10(scaled));
  const step = [1, 1.5, 2, 3, 5, 7.5, 10].find(step => step * power >= scaled * 1.0001);
  return step * power * base;
}

/// A card with a chart; `update` gives it its series anew.
function card(figure) {
  const now = h("span", { class: "now" });
  const legend = h("div", { class: "legend" });
  const entries = figure.series.map(([label], place) => h("span", {}));
  if (figure.series.length > 1) fill(legend, figure.series.map(([label], place) => h("span", {}, h("i", { class: COLOURS[place] }), `${label} `, entries[place])));
  const chart = svg("svg", { class: "chart", role: "img", preserveAspectRatio: "none" });
  const when = h("span", { class: "when" });
  if (figure.series.length === 1) fill(legend, when);
  const element = h("article", { class: "card", id: `card-${figure.id}`, "aria-labelledby": `card-title-${figure.id}` },
    h("h3", {}, h("span", { id: `card-title-${figure.id}` }, figure.title), now),
    legend, chart,
    h("div", { class: "metrics" }, figure.metrics.map(metric => metricButton(metric, figure.about, figure.runbook))));
  let lists = [], at = null;
  const lead = figure.lead || 0;
  const say = place => {
    const value = list => place === null ? last(list) : list[place];
    entries.forEach((entry, number) => setText(entry, shown(lists[number] ? value(lists[number]) : null, figure.kind)));
    const sum = lists.map(value).filter(isNumber);
    const whole = figure.sum ? (sum.length ? sum.reduce((one, other) => one + other, 0) : null) : lists[lead] ? value(lists[lead]) : null;
    setText(now, (lead ? `${figure.series[lead][0]} ` : "") + shown(whole, figure.kind));
    setText(when, place === null ? "" : `at ${clock(timeOf(place, lists[0].length))}`);
  };
  const draw = () => {
    const width = Math.max(120, Math.round(chart.clientWidth || 280)), height = 92, foot = 14, top = 12;
    const length = known.history ? known.history.max : 180;
    const ceiling = figure.ceiling || ceilingOf(maximum(lists), figure.kind);
    chart.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const grids = [0, 0.5, 1].map(share => { const y = top + (1 - share) * (height - foot - top) + 0.5; return svg("line", { class: "grid", x1: 0, x2: width, y1: y.toFixed(1), y2: y.toFixed(1) }); });
    const texts = [svg("text", { x: 0, y: 9 }, shown(ceiling, figure.kind)), svg("text", { x: 0, y: height - 2 }, "15 min ago"), svg("text", { x: width, y: height - 2, "text-anchor": "end" }, "now")];
    const paths = lists.map((list, number) => svg("path", { class: `line-${COLOURS[number]}`, d: line(list, length, width, height - foot, top, ceiling) }));
    if (lists.length === 1) {
      const path = line(lists[0].map(value => isNumber(value) ? value : 0), length, width, height - foot, top, ceiling);
      const begin = ((length - lists[0].length) / (length - 1)) * width;
      if (path) paths.unshift(svg("path", { class: "area", d: `${path}V${height - foot}H${begin.toFixed(1)}Z` }));
    }
    const mark = at === null ? [] : [svg("line", { class: "at", x1: at, x2: at, y1: top, y2: height - foot })];
    fill(chart, svg("title", {}, ""), grids, paths.reverse(), mark, texts);
    chart.firstChild.remove();
    const most = maximum(lists);
    chart.setAttribute("aria-label", `${figure.title} in the last 15 minutes: ${figure.series.map(([label], number) => `${label} now ${shown(lists[number] ? last(lists[number]) : null, figure.kind)}`).join(", ")}, at most ${shown(most, figure.kind)}`);
  };
  const point = event => {
    const length = known.history ? known.history.max : 180, box = chart.getBoundingClientRect();
    const place = Math.round((event.clientX - box.left) / box.width * (length - 1)) - (length - (lists[0] || []).length);
    if (place < 0 || !lists[0] || place >= lists[0].length) { leave(); return; }
    at = Math.round((event.clientX - box.left) * 10) / 10;
    say(place); draw();
  };
  const leave = () => { at = null; say(null); draw(); };
  chart.addEventListener("pointermove", point);
  chart.addEventListener("pointerleave", leave);
  return { element, update(series) { lists = figure.series.map(([, name]) => series[name] || []); if (at === null) { say(null); draw(); } }, draw };
}
const timeOf = (place, length) => known.history.time - (length - 1 - place) * known.history.interval;

/// A small chart in a row of a table; decoration beside a figure in words.
function spark() {
  const path = svg("path", { class: "line-one" });
  const element = svg("svg", { class: "spark", viewBox: "0 0 110 20", "aria-hidden": "true", preserveAspectRatio: "none" }, path);
  return { element, update(values) {
    const length = known.history ? known.history.max : 180;
    path.setAttribute("d", line(values || [], length, 110, 19, 1, maximum([values || []]) || 1));
  } };
}

/// A table whose rows stay in place: cells are written anew only where they have changed. Each column has a title, how a row is
/// shown in it (`text`, or `node` which makes and changes what is in the cell), and by what it is ordered.
function table(host, caption, columns, options = {}) {
  const rows = new Map();
  const body = h("tbody");
  let order = options.order ?? null, downwards = options.downwards ?? false, items = [];
  const heads = columns.map((column, place) => {
    const name = column.by ? h("button", { type: "button", class: "sort", onclick: () => { downwards = order === place ? !downwards : !!(column.number || column.isFigure); order = place; update(items); } }, column.title) : column.title;
    return h("th", { scope: "col", class: column.number ? "number" : null }, name, column.figure ? figureButton(column.figure, true) : null);
  });
  const element = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, h("table", {}, h("caption", {}, caption), h("thead", {}, h("tr", {}, heads)), body));
  const empty = h("p", { class: "empty" }, options.empty || "None.");
  const most = options.most || 100;
  const rest = h("p", { class: "quiet" });
  function cell(column, item) {
    const element = h(column.head ? "th" : "td", { class: [column.number && "number", column.wide && "wide", column.mono && "mono"].filter(Boolean).join(" ") || null, scope: column.head ? "row" : null });
    if (column.node) { const node = column.node(item); element.append(node.element); return { element, update: item => node.update(item) }; }
    return { element, update: item => setText(element, column.text(item)) };
  }
  function update(list) {
    items = list;
    const sorted = [...list];
    if (order !== null) {
      const by = columns[order].by, sign = downwards ? -1 : 1;
      sorted.sort((one, other) => { const [left, right] = [by(one), by(other)]; return left === right ? 0 : left === null || left === undefined ? 1 : right === null || right === undefined ? -1 : typeof left === "string" ? sign * left.localeCompare(right, "en", { numeric: true }) : sign * (left - right); });
    }
    const told = sorted.slice(0, most);
    const keys = new Set();
    told.forEach((item, place) => {
      const key = options.key ? options.key(item) : String(place);
      keys.add(key);
      let row = rows.get(key);
      if (!row) {
        const cells = columns.map(column => cell(column, item));
        row = { element: h("tr", {}, cells.map(cell => cell.element)), cells };
        rows.set(key, row);
      }
      row.cells.forEach(cell => cell.update(item));
      if (body.children[place] !== row.element) body.insertBefore(row.element, body.children[place] || null);
    });
    for (const [key, row] of rows) if (!keys.has(key)) { row.element.remove(); rows.delete(key); }
    heads.forEach((head, place) => { if (order === place) head.setAttribute("aria-sort", downwards ? "descending" : "ascending"); else head.removeAttribute("aria-sort"); });
    setText(rest, sorted.length > most ? `${plain.format(sorted.length - most)} more are not shown; search or order them otherwise.` : "");
    const wanted = told.length ? [element, ...(rest.textContent ? [rest] : [])] : [empty];
    if (host.children.length !== wanted.length || wanted.some((node, place) => host.children[place] !== node)) fill(host, wanted);
  }
  return { update };
}
