"use strict";
// Shows each snapshot that the run sends. Whatever it says of users is set as text, never as markup.
{
  const at = (id) => document.getElementById(id);
  const say = (id, text) => { if (at(id).textContent !== text) at(id).textContent = text; };
  const count = (value) => Math.round(value).toLocaleString("en");
  const percent = (share) => (share === 0 || share === 1 || (share >= 0.1 && share < 0.9) ? (100 * share).toFixed(0) : (100 * share).toFixed(2)) + " %";
  const duration = (seconds) => {
    const whole = Math.round(seconds), two = (value) => String(value).padStart(2, "0");
    const hours = Math.floor(whole / 3600), minutes = Math.floor((whole % 3600) / 60);
    return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
  };
  const row = (cells) => {
    const made = document.createElement("tr");
    for (const [text, kind] of cells) {
      const cell = made.insertCell();
      cell.textContent = text;
      cell.className = kind;
    }
    return made;
  };
  let draw = null, toldAt = 0;
  const show = ({ now, course }, isOver) => {
    const failed = now.outcomes.filter((each) => !each.is_good).reduce((sum, each) => sum + each.rows, 0);
    const held = isOver ? "" : now.waits;
    const state = now.stopping ? (isOver ? "stopped" : "stopping") : isOver ? "ended" : held ? "waiting" : "running";
    say("state", state);
    at("state").className = "badge " + (now.stopping ? "bad" : isOver ? (failed ? "bad" : "good") : held ? "warn" : "good");
    say("when", `${duration(now.elapsed_s)} gone`);
    say("why", now.stopping || held);
    at("why").hidden = !(now.stopping || held);
    if (now.share == null) at("done").removeAttribute("value"); else at("done").value = now.share;
    say("share", now.again ? `Sent again: ${count(now.rows)} of ${count(now.again)} rows` : now.share == null ? "Export settled: nobody knows how much there is" : `Export settled: ${percent(now.share)}`);
    say("rows", count(now.rows));
    say("failed", count(failed));
    say("of_rows", failed ? percent(failed / now.rows) : "");
    at("failed").className = failed ? "bad" : "good";
    say("left", isOver ? "–" : now.left_s == null ? (now.found.is_guess ? "finding the pace" : "not known") : duration(now.left_s));
    say("pace", count(now.now_per_s));
    say("mean", `${count(now.rows_per_s)} on average`);
    say("requests", count(now.wire.requests));
    say("refused", [now.wire.refused && `${count(now.wire.refused)} refused (429)`, now.wire.halved && `${count(now.wire.halved)} refused and halved`].filter(Boolean).join(", "));
    say("words", now.words.join(" · "));
    at("outcomes").replaceChildren(...now.outcomes.filter((each) => each.rows).map((each) => row([
      [each.code, "code " + (each.is_good ? "" : "bad")], [count(each.rows), "number"], [percent(each.rows / now.rows), "number"], [each.meaning, ""],
    ])));
    at("failures-section").hidden = !now.failures.length;
    at("failures").replaceChildren(...[...now.failures].reverse().map((each) => row([
      [String(each.row), "number"], [each.user, ""], [each.code, "code bad"], [each.message, ""],
    ])));
    document.title = `${now.share == null ? count(now.rows) + " rows" : percent(now.share)} · load, ${state}`;
    if (isOver || now.elapsed_s - toldAt >= 60) { // for screen readers: now and then, not each second
      toldAt = now.elapsed_s;
      say("told", `${state}: ${count(now.rows)} rows settled, ${count(failed)} failed` + (now.left_s == null || isOver ? "" : `, ${duration(now.left_s)} left`));
    }
    if (draw) draw(course); else draw = loaderCharts(course);
  };
  const source = new EventSource(events);
  const take = (isOver) => (event) => {
    const data = JSON.parse(event.data);
    if (isOver) source.close();
    if (data) show(data, isOver);
  };
  source.addEventListener("now", take(false));
  source.addEventListener("end", take(true));
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED || !draw) return;
    say("state", "no connection");
    at("state").className = "badge warn";
  };
}
