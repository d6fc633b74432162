// What everything else stands on: elements, numbers for people, and requests.

const $ = id => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

/// An element; attributes that begin with "on" are listeners, those that are undefined, null or false are left out.
function make(space, tag, attributes, children) {
  const element = space ? document.createElementNS(space, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter(child => child !== undefined && child !== null));
  return element;
}
const h = (tag, attributes, ...children) => make(null, tag, attributes, children);
const svg = (tag, attributes, ...children) => make(SVG, tag, attributes, children);

/// Shows these instead of what was there.
const fill = (element, ...children) => element.replaceChildren(...children.flat(Infinity).filter(child => child !== null && child !== undefined));
const setText = (element, text) => { if (element.textContent !== text) element.textContent = text; };

const isNumber = value => typeof value === "number" && Number.isFinite(value);
const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
/// Three digits that count, with a suffix.
function short(value, step, suffixes) {
  let place = 0;
  while (Math.abs(value) >= step && place < suffixes.length - 1) { value /= step; place += 1; }
  const digits = place === 0 && Number.isInteger(value) ? 0 : value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return value.toFixed(digits) + suffixes[place];
}
const NUMBERS = {
  count: value => value < 100000 ? plain.format(value) : short(value, 1000, ["", " k", " M", " G"]),
  rate: value => value !== 0 && value < 1 ? value.toFixed(2) : value < 10 && !Number.isInteger(value) ? value.toFixed(1) : value < 100000 ? plain.format(value) : short(value, 1000, ["", " k", " M", " G"]),
  bytes: value => short(value, 1024, [" B", " KiB", " MiB", " GiB", " TiB"]),
  seconds: value => value < 0.001 ? `${(value * 1e6).toFixed(0)} µs` : value < 1 ? `${short(value * 1e3, 1e9, [""])} ms` : `${value.toFixed(2)} s`,
  share: value => `${(value * 100).toFixed(value >= 0.1 || value === 0 ? 0 : 1)} %`,
};
const UNITS = { rate: "/s", bytes_rate: "/s" };
const shown = (value, kind) => !isNumber(value) ? "–" : kind === "bytes_rate" ? `${NUMBERS.bytes(value)}/s` : NUMBERS[kind](value) + (UNITS[kind] || "");

const counted = (count, word) => `${plain.format(count)} ${word}${count === 1 ? "" : word.endsWith("s") ? "es" : "s"}`;

/// Seconds as people say them.
function span(seconds) {
  if (!isNumber(seconds)) return "–";
  for (const [size, word] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= size * 2) return `${Math.floor(seconds / size)} ${word}`;
  }
  return `${Math.max(0, Math.floor(seconds))} s`;
}
const clock = millis => new Date(millis).toLocaleTimeString("en-GB");
const moment = millis => `${new Date(millis).toLocaleDateString("sv")} ${clock(millis)}`;

/// What the page knows. The token is here and nowhere else.
const known = { paths: new Set(), pool: null, token: null, history: null, state: null, all: null, denied: null, view: null };

class Refused extends Error {
  constructor(status, text, wait) { super(text.trim() || `status ${status}`); this.status = status; this.wait = wait; }
}

const TIMEOUT = 15000;
async function request(path, options = {}) {
  const headers = { ...(options.headers || {}) };
  if (known.token) headers.Authorization = `Bearer ${known.token}`;
  let response, text;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(TIMEOUT) });
    // The connection may end in the midst of it, and the time as well.
    text = await response.text();
  } catch (error) {
    throw new Refused(0, error.name === "TimeoutError" ? `no answer within ${TIMEOUT / 1000} s` : "the proxy cannot be reached");
  }
  if (!response.ok) throw new Refused(response.status, text, Number(response.headers.get("Retry-After")) || 0);
  return text;
}
const ask = async path => JSON.parse(await request(path));
const query = parameters => Object.entries(parameters).filter(([, value]) => value !== undefined && value !== null && value !== "").map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join("&");
