// The page in Chromium, from first look to drain: one story, because each part begins where the one before has ended.

import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";

const { CHROMIUM, MEMSTORE_HOST: host, MEMSTORE_PORT: port, MEMSTORE_ADMIN: admin, MEMSTORE_CONFIG: config, SHARD_PROCESS } = process.env;
const base = `http://${admin}/`;
const TOKEN = "s3cret-of-the-page";
const AXE = readFileSync(new URL("node_modules/axe-core/axe.min.js", import.meta.url), "utf8");

let browser, page;
/// What no test may leave behind; a failed request is expected where a test says so.
const complaints = [];
let expected = null;
const requests = new Set();

function watch(page) {
  page.on("console", message => {
    if (["error", "warning"].includes(message.type()) && !(expected && expected.test(message.text()))) complaints.push(message.text());
  });
  page.on("pageerror", error => complaints.push(error.stack));
  page.on("request", request => requests.add(`${request.method()} ${new URL(request.url()).protocol === "data:" ? "data:" : request.url().replace(/\?.*/, "")}`));
}

/// A client that sends requests and counts replies.
function client() {
  const socket = connect(Number(port), host);
  let replies = 0, isOpen = true;
  socket.on("data", data => { for (const byte of data) if (byte === 10) replies += 1; });
  socket.on("close", () => { isOpen = false; });
  socket.on("error", () => { isOpen = false; });
  return { send: text => socket.write(text), replies: () => replies, isOpen: () => isOpen, end: () => socket.destroy() };
}

/// Requests in the background until it is told to end.
function load() {
  const one = client();
  let number = 0;
  const timer = setInterval(() => {
    let text = "";
    for (let count = 0; count < 100; count += 1) text += `SET key:${number += 1} value\r\n`;
    one.send(text);
  }, 50);
  return () => { clearInterval(timer); one.end(); };
}

const until = (what, argument) => page.waitForFunction(what, argument, { timeout: 30000 });
const text = selector => page.locator(selector).innerText();
const show = async view => {
  await page.click(`#nav-${view}`);
  await page.waitForSelector(`#view-${view}:not([hidden])`);
};

/// Nothing that a screen reader, a keyboard or weak eyes cannot use, in what is shown now.
async function isAccessible(where, on = page) {
  await on.evaluate(AXE);
  const { violations } = await on.evaluate(() => axe.run());
  assert.deepEqual(violations.map(({ id, nodes }) => `${where}: ${id}: ${nodes.map(node => `${node.target} ${node.failureSummary}`).join("; ")}`), []);
}

before(async () => {
  browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", "--disable-gpu"] });
  page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
  watch(page);
});
after(async () => {
  await browser?.close();
});

test("the page is one document with a strict policy", async () => {
  const response = await page.goto(base);
  const policy = response.headers()["content-security-policy"];
  assert.match(policy, /^default-src 'none'; script-src 'nonce-[A-Za-z0-9+/=]+'; style-src 'nonce-/);
  assert.doesNotMatch(policy, /unsafe|\*/);
  await until(() => document.querySelectorAll("#cards .card svg path").length > 8);
  assert.equal(await page.title(), "memstore – sessions");
  assert.match(await text("#state"), /4 of 4 shards up/);
});

test("views are there whose paths are", async () => {
  const paths = (await (await fetch(base, { headers: { Accept: "text/plain" } })).text()).split("\n").map(line => line.split(/\s+/)[1]);
  for (const view of ["route", "clients", "slow", "hot", "config"]) {
    assert.equal(await page.locator(`#nav-${view}`).count(), paths.includes(`/${view}`) ? 1 : 0, view);
  }
  assert.equal(await page.locator("#nav-cluster").count(), 0);
});

test("figures and charts follow the load", async () => {
  const end = load();
  await until(() => Number.parseFloat(document.querySelector("#card-requests .now").textContent.replace(/,/g, "")) > 500);
  await until(() => /s$/.test(document.querySelector("#card-latency .now").textContent));
  const before = await page.locator("#card-requests path.line-one").getAttribute("d");
  await until(before => document.querySelector("#card-requests path.line-one").getAttribute("d") !== before, before);
  const label = await page.locator("#card-requests svg").getAttribute("aria-label");
  assert.match(label, /^Requests in the last 15 minutes: requests now [\d,.]+\/s, at most/);
  await show("shards");
  await until(() => document.querySelectorAll("#shards tbody tr").length === 4);
  await until(() => [...document.querySelectorAll("#shards tbody tr")].every(row => /[\d,.]+\/s/.test(row.textContent)));
  end();
  await until(() => document.querySelectorAll("#shards tbody tr")[0].children[4].textContent === "0/s");
});

test("rows stay where they are, and are ordered and searched", async () => {
  await page.evaluate(() => { document.querySelector("#shards tbody tr").dataset.kept = "yes"; });
  await page.click("#shards th:nth-child(4) button");
  await until(() => document.querySelector("#shards tbody th").textContent === "shard-2");
  assert.equal(await page.locator("#shards tr[data-kept]").count(), 1);
  assert.equal(await page.locator("#shards th[aria-sort=descending]").count(), 1);
  await page.fill("#shards-search", "shard-3");
  assert.equal(await page.locator("#shards tbody tr").count(), 1);
  await page.fill("#shards-search", "");
});

test("a shard that fails is shown, with its reason", async () => {
  process.kill(Number(SHARD_PROCESS), "SIGKILL");
  const end = load();
  await show("overview");
  await until(() => /shard-3/.test(document.querySelector("#attention").textContent) && /down/.test(document.querySelector("#attention").textContent));
  await until(() => /connect_refused|closed/.test(document.querySelector("#failures").textContent));
  await until(() => Number.parseFloat(document.querySelector("#card-errors .now").textContent.replace(/,/g, "")) > 0);
  assert.match(await text("#state"), /3 of 4 shards up/);
  assert.match(await page.title(), /^! memstore/);
  end();
});

test("each view is accessible, light and dark, on a desk and on a phone", async () => {
  const views = await page.locator("nav a").evaluateAll(links => links.map(link => link.id.replace("nav-", "")));
  assert.ok(views.includes("clients") && views.includes("process"), views.join());
  // What tells of keys needs the token.
  expected = /403/;
  for (const [colorScheme, width] of [["light", 1280], ["dark", 1280], ["light", 390]]) {
    await page.emulateMedia({ colorScheme });
    await page.setViewportSize({ width, height: 800 });
    for (const view of views) {
      await show(view);
      await page.waitForLoadState("networkidle");
      await isAccessible(`${view} ${colorScheme} ${width}`);
      const wider = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.equal(wider, 0, `${view} is wider than ${width}`);
    }
  }
  expected = null;
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize({ width: 1280, height: 800 });
});

test("all of it is reached by keyboard, and a metric says what it is", async () => {
  await show("overview");
  await page.evaluate(() => document.activeElement.blur());
  await page.reload();
  await page.waitForSelector("#cards .card");
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
  const seen = [];
  for (let count = 0; count < 20; count += 1) {
    await page.keyboard.press("Tab");
    seen.push(await page.evaluate(() => document.activeElement.id || document.activeElement.textContent));
    if (seen.at(-1) === "memstore_requests_total") break;
  }
  assert.deepEqual(seen.slice(0, 3), ["pool", "unlock", "nav-overview"]);
  assert.equal(seen.at(-1), "memstore_requests_total");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#about[open] h3");
  assert.equal(await text("#about-title"), "memstore_requests_total");
  assert.match(await text("#about-body"), /MemstoreWorkerSaturated[^]*A worker has been busy/);
  await isAccessible("explanation");
  await page.keyboard.press("Escape");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "memstore_requests_total");
});

test("without the token nothing can be changed, and a wrong one is refused", async () => {
  await show("process");
  for (const id of ["do-reload", "do-level", "do-drain"]) assert.ok(await page.isDisabled(`#${id}`));
  await page.click("#unlock");
  await isAccessible("token");
  expected = /403/;
  await page.fill("#token-text", "wrong");
  await page.keyboard.press("Enter");
  await until(() => document.querySelector("#token-wrong").textContent === "wrong token");
  expected = null;
  assert.ok(await page.isDisabled("#do-reload"));
  await page.fill("#token-text", TOKEN);
  await page.keyboard.press("Enter");
  await until(() => !document.querySelector("#do-reload").disabled);
  // It is kept nowhere.
  assert.deepEqual(await page.evaluate(() => [localStorage.length, sessionStorage.length, document.cookie, document.querySelector("#token-text").value]), [0, 0, "", ""]);
});

test("the configuration is reloaded, and what is wrong with it is said", async () => {
  await page.click("#do-reload");
  await until(() => /^Reload: generation 1: nothing to apply/.test(document.querySelector("#said").textContent));
  const right = readFileSync(config, "utf8");
  writeFileSync(config, right.replace("timeout: 400", "timeout: soon"));
  expected = /409/;
  await page.click("#do-reload");
  await until(() => /^Reload failed: .*timeout/.test(document.querySelector("#said").textContent));
  expected = null;
  await until(() => /reload failed/.test(document.querySelector("#state").textContent));
  await until(() => /failed/.test(document.querySelector("#reloads").textContent));
  // The shard that is down stays in the list; what is read is in force all the same.
  writeFileSync(config, right.replace("timeout: 400", "timeout: 500"));
  await page.click("#do-reload");
  await until(() => /^Reload: generation 2/.test(document.querySelector("#said").textContent));
  await until(() => !/reload failed/.test(document.querySelector("#state").textContent));
  await until(() => /sessions: timeout 400 → 500/.test(document.querySelector("#reloads").textContent));
});

test("the log level is set", async () => {
  await page.selectOption("#level", "debug");
  await page.click("#do-level");
  await until(() => /^Log level: debug/.test(document.querySelector("#said").textContent));
  await page.selectOption("#level", "info");
  await page.click("#do-level");
  await until(() => /^Log level: info/.test(document.querySelector("#said").textContent));
});

test("a client is found and disconnected", async () => {
  const victim = client();
  victim.send("CLIENT SETNAME <img/src=x>\r\n");
  await show("clients");
  await page.click("#clients-tools button");
  await until(() => /<img\/src=x>/.test(document.querySelector("#clients").textContent));
  await page.locator("#clients tr", { hasText: "<img/src=x>" }).locator("button").click();
  await page.waitForSelector("#ask[open]");
  await isAccessible("question");
  await page.click("#ask button[value=no]");
  assert.ok(victim.isOpen());
  await page.locator("#clients tr", { hasText: "<img/src=x>" }).locator("button").click();
  await page.click("#ask-yes");
  await until(() => /^Client \d+: disconnected: 1/.test(document.querySelector("#said").textContent));
  for (let count = 0; victim.isOpen() && count < 200; count += 1) await new Promise(done => setTimeout(done, 20));
  assert.ok(!victim.isOpen());
});

test("the owner of a key is found", async context => {
  if (!await page.locator("#nav-route").count()) return context.skip("no /route yet");
  await show("route");
  await page.fill("#route-key", "user:{42}:<b>");
  await page.keyboard.press("Enter");
  await until(() => /shard-\d/.test(document.querySelector("#route").textContent));
});

test("another pool is looked at", async () => {
  await page.selectOption("#pool", "pages");
  await show("shards");
  await until(() => /page-1/.test(document.querySelector("#shards").textContent) && !/shard-0/.test(document.querySelector("#shards").textContent));
  await page.selectOption("#pool", "sessions");
});

test("a connection that ends in the midst of an answer is no end of the page", async () => {
  await page.evaluate(() => {
    const { text } = Response.prototype;
    Response.prototype.text = () => { Response.prototype.text = text; return Promise.reject(new TypeError("network error")); };
  });
  await until(() => !document.querySelector("#trouble").hidden && /cannot be reached/.test(document.querySelector("#trouble").textContent));
  await until(() => document.querySelector("#trouble").hidden);
});

test("a page of others cannot read or change anything", async () => {
  // As after DNS rebinding: their name leads here.
  const other = await browser.newContext();
  const evil = await other.newPage();
  await evil.route("http://evil.example/**", route => route.fulfill({ body: "<p>evil</p>", contentType: "text/html" }));
  await evil.goto("http://evil.example/");
  const tried = await evil.evaluate(async base => {
    const outcome = async (path, options) => { try { return (await fetch(base + path, options)).status; } catch { return "refused"; } };
    return [await outcome("status"), await outcome("reload", { method: "POST" }), await outcome("clients?pool=sessions"), await outcome("drain", { method: "POST", headers: { Authorization: "Bearer x" } })];
  }, base);
  assert.deepEqual(tried, ["refused", "refused", "refused", "refused"]);
  await other.close();
});

test("a drain is asked for twice, and the page says that the proxy is gone", async () => {
  await show("process");
  await page.click("#do-drain");
  await page.waitForSelector("#ask[open]");
  expected = /ERR_CONNECTION|Failed to load/;
  await page.click("#ask-yes");
  await until(() => /^Drain: draining/.test(document.querySelector("#said").textContent));
  await until(() => !document.querySelector("#trouble").hidden && /cannot be reached/.test(document.querySelector("#trouble").textContent));
});

test("nothing was complained about, and nothing asked of anybody else", () => {
  assert.deepEqual(complaints, []);
  const foreign = [...requests].filter(request => !request.endsWith("data:") && !request.includes(` ${base}`));
  assert.deepEqual(foreign, []);
  const changing = [...requests].filter(request => !request.startsWith("GET ")).map(request => request.replace(base, "/"));
  assert.deepEqual(changing.sort(), ["POST /clients/kill", "POST /drain", "POST /reload", "POST /token", "PUT /log-level"]);
});
