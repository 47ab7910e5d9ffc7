// Keeps a page fresh: asks for it again and puts the new middle in place of the old one, says how old it is, and shows
// when the engine no longer answers. The page is whole without it.
"use strict";
(function () {
  const EVERY = 10000;
  // Two refreshes that failed: a single one may be a restart.
  const LOST_AFTER = 2;
  const live = document.getElementById("live");
  let answered = new Date();
  let failed = 0;
  // What a person has typed or is about to send would be lost; everything else is put back as it was.
  function busy() {
    const at = document.activeElement;
    const writing = at && at.closest("main form") && !at.matches("button");
    const written = Array.from(document.querySelectorAll("main input:not([type=hidden])")).some(
      (input) => input.value !== input.defaultValue,
    );
    const chosen = Array.from(document.querySelectorAll("main select")).some((select) =>
      Array.from(select.options).some((option) => option.selected !== option.defaultSelected && select.value !== ""),
    );
    return document.hidden || writing || written || chosen;
  }
  function clock(at) {
    return at.toLocaleTimeString([], { hour12: false });
  }
  function age() {
    if (!live) return;
    const seconds = Math.max(0, Math.round((Date.now() - answered.getTime()) / 1000));
    live.textContent = (failed ? "not live" : "live") + " · " + seconds + " s ago";
    let bar = document.getElementById("lost");
    if (failed < LOST_AFTER) {
      if (bar) bar.remove();
      return;
    }
    if (!bar) {
      bar = document.createElement("p");
      bar.id = "lost";
      bar.setAttribute("role", "alert");
      document.body.prepend(bar);
      bar.textContent = "No answer from the engine since " + clock(answered) + ": what is shown here may be out of date";
    }
  }
  // What was unfolded, by its id, or by its text without the times, which change.
  function name(details) {
    if (details.id) return details.id;
    const summary = details.querySelector("summary").cloneNode(true);
    summary.querySelectorAll("time").forEach((time) => time.remove());
    return summary.textContent;
  }
  function put(id, page) {
    const fresh = page.getElementById(id);
    const old = document.getElementById(id);
    if (fresh && old) old.replaceWith(document.adoptNode(fresh));
  }
  async function look() {
    // Asked by hand as a GET: after a refused form, the address is that of the form.
    if (!document.getElementById("main") || location.pathname.startsWith("/web/")) return;
    let answer;
    try {
      answer = await fetch(location.pathname + location.search, {
        headers: { "x-nightshift-live": "1" },
        redirect: "error",
        signal: AbortSignal.timeout(EVERY),
      });
    } catch {
      failed += 1;
      return;
    }
    if (answer.status === 401) {
      location.reload();
      return;
    }
    if (!answer.ok && answer.status !== 404) {
      failed += 1;
      return;
    }
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    failed = 0;
    answered = new Date();
    put("banner", page);
    if (!answer.ok || busy()) return;
    const open = Array.from(document.querySelectorAll("#main details[open]")).map(name);
    put("main", page);
    for (const details of document.querySelectorAll("#main details")) {
      if (open.includes(name(details))) details.open = true;
    }
  }
  let looking = false;
  setInterval(() => {
    if (looking || document.hidden) return;
    looking = true;
    look()
      .catch(() => {})
      .then(() => {
        looking = false;
        age();
      });
  }, EVERY);
  setInterval(age, 1000);
  age();
})();
