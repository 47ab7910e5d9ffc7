// Keeps a page fresh: asks for it again and puts the new middle in place of the old one. The page is whole without it.
"use strict";
(function () {
  const EVERY = 10000;
  function busy() {
    const at = document.activeElement;
    const writing = at && at.closest("main form");
    const written = Array.from(document.querySelectorAll("main input:not([type=hidden])")).some(
      (input) => input.value !== input.defaultValue,
    );
    return document.hidden || writing || written || document.querySelector("main details[open]");
  }
  async function look() {
    if (busy()) return;
    // Asked by hand as a GET: after a refused form, the address is that of the form.
    if (!document.getElementById("main") || location.pathname.startsWith("/web/")) return;
    const answer = await fetch(location.pathname, { headers: { "x-nightshift-live": "1" }, redirect: "error" });
    if (answer.status === 401) {
      location.reload();
      return;
    }
    if (!answer.ok || busy()) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("main");
    if (fresh) document.getElementById("main").replaceWith(document.adoptNode(fresh));
  }
  setInterval(() => look().catch(() => {}), EVERY);
})();
