"use strict";
// Draws the course of a load: columns over time, one chart a figure. `loaderCharts(columns)` returns what draws them
// anew with other columns, or in other colours.
function loaderCharts(columns) {
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const short = (value) => {
    if (value == null) return "–";
    const size = Math.abs(value);
    if (size >= 1e6) return (value / 1e6).toFixed(size >= 1e7 ? 0 : 1) + " M";
    if (size >= 1e4) return (value / 1e3).toFixed(0) + " k";
    return size >= 100 || Number.isInteger(value) ? value.toFixed(0) : value.toPrecision(2);
  };
  const seconds = (value) =>
    value == null ? "–" : value < 1 ? short(value * 1000) + " ms" : short(value) + " s";
  const clock = (plot, ticks) => {
    const isShort = plot.scales.x.max - plot.scales.x.min < 900;
    const form = { hour: "2-digit", minute: "2-digit", hourCycle: "h23", ...(isShort ? { second: "2-digit" } : {}) };
    return ticks.map((tick) => new Date(tick * 1000).toLocaleTimeString([], form));
  };
  const kinds = {
    pace: { names: [["rows_per_s", "users a second", "--series-1", true]], write: short },
    times: { names: [["p50_s", "half of the answers", "--series-1"], ["p95_s", "95 of 100", "--series-2"]], write: seconds },
    wire: { names: [["on_wire", "on the wire", "--series-1", true], ["at_once", "allowed", "--series-3"]], write: short },
    trouble: { names: [["refused_per_s", "refused (429)", "--series-2", true], ["broken_per_s", "no usable answer", "--series-3"]], write: short },
  };
  const drawn = [];
  const make = (place) => {
    const { names, write } = kinds[place.dataset.chart];
    const axis = { stroke: color("--dim"), grid: { stroke: color("--line"), width: 1 }, ticks: { stroke: color("--line"), width: 1 } };
    const options = {
      width: place.clientWidth, height: 190,
      cursor: { points: { size: 6 }, sync: { key: "course" } },
      legend: { live: true },
      scales: { y: { range: (_plot, _low, high) => [0, high > 0 ? high * 1.1 : 1] } },
      axes: [{ ...axis, values: clock }, { ...axis, size: 58, values: (_, ticks) => ticks.map(write) }],
      series: [{ label: "time", value: (plot, value) => (value == null ? "–" : clock(plot, [value])[0]) }, ...names.map(([, label, stroke, filled]) => ({
        label, stroke: color(stroke), width: 1.5, spanGaps: false,
        fill: filled ? color(stroke) + "22" : undefined,
        value: (_, value) => write(value), points: { show: columns.at.length < 3 },
      }))],
    };
    place.replaceChildren();
    drawn.push({ place, names, plot: new uPlot(options, [columns.at, ...names.map(([name]) => columns[name])], place) });
  };
  const all = () => {
    drawn.splice(0).forEach(({ plot }) => plot.destroy());
    document.querySelectorAll("[data-chart]").forEach(make);
  };
  const resize = () => drawn.forEach(({ place, plot }) => plot.setSize({ width: place.clientWidth, height: 190 }));
  addEventListener("resize", resize);
  for (const query of ["(prefers-color-scheme: dark)", "print"]) matchMedia(query).addEventListener("change", all);
  all();
  return (more) => {
    columns = more;
    drawn.forEach(({ plot, names }) => plot.setData([columns.at, ...names.map(([name]) => columns[name])]));
  };
}
