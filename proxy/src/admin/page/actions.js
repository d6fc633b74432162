// What changes something: only with the token, only after a question where it cannot be taken back, never by GET.

const tell = text => setText($("said"), text);

/// Asks whether that is meant.
function confirmed(title, text, yes) {
  setText($("ask-title"), title);
  setText($("ask-text"), text);
  setText($("ask-yes"), yes);
  const dialog = $("ask");
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise(done => dialog.addEventListener("close", () => done(dialog.returnValue === "yes"), { once: true }));
}

async function change(what, path, options) {
  tell("");
  try {
    tell(`${what}: ${(await request(path, options)).trim()}`);
    await run(() => refresh(true));
  } catch (error) {
    tell(`${what} failed: ${error.message}`);
    if (error.status === 403) lock();
  }
}

async function killClient(client) {
  if (!await confirmed("Disconnect client", `Client ${client.id} at ${client.address} loses its connection. Requests that it has in flight are not answered.`, "Disconnect")) return;
  await change(`Client ${client.id}`, "/clients/kill", { method: "POST", body: JSON.stringify({ pool: known.pool, id: client.id }) });
  await run(loadClients);
}
const reload = () => change("Reload", "/reload", { method: "POST" });
const setLevel = () => change("Log level", "/log-level", { method: "PUT", body: $("level").value });
async function drain() {
  if (await confirmed("Drain", "The process accepts no new clients from now on and ends. This cannot be taken back.", "Drain")) await change("Drain", "/drain", { method: "POST" });
}

function lock() { known.token = null; showLock(); }
function showLock() {
  const unlocked = !!known.token;
  setText($("unlock"), unlocked ? "Forget token" : "Enter token");
  $("locked").hidden = unlocked;
  for (const id of ["do-reload", "do-level", "do-drain"]) $(id).disabled = !unlocked;
  for (const button of document.querySelectorAll(".kill")) button.disabled = !unlocked;
}

async function unlock(event) {
  event.preventDefault();
  setText($("token-wrong"), "");
  const token = $("token-text").value.trim();
  try {
    await request("/token", { method: "POST", headers: { Authorization: `Bearer ${token}` } });
  } catch (error) {
    setText($("token-wrong"), error.message);
    $("token-text").select();
    return;
  }
  known.token = token;
  $("token").close();
  showLock();
  tell("The token is right; actions are enabled.");
}

$("unlock").addEventListener("click", () => {
  if (known.token) { lock(); tell("The token is forgotten; the page is read-only."); return; }
  setText($("token-wrong"), "");
  $("token").showModal();
});
$("token").addEventListener("close", () => { $("token-text").value = ""; });
$("token-form").addEventListener("submit", unlock);
$("token-cancel").addEventListener("click", () => $("token").close());
$("do-reload").addEventListener("click", reload);
$("do-drain").addEventListener("click", drain);
$("level-form").addEventListener("submit", event => { event.preventDefault(); setLevel(); });
