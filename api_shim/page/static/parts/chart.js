// A chart over time. uPlot draws it; its colours are the page's, and follow the theme.
import uPlot from 'uplot';
import { html, useEffect, useRef } from '../html.js';
import { remembered } from '../store.js';

const styles = document.createElement('link');
styles.rel = 'stylesheet';
styles.href = new URL('../vendor/uplot/uPlot.min.css', import.meta.url).href;
document.head.append(styles);

const TIME = { minutes: { hour: '2-digit', minute: '2-digit' }, seconds: { timeStyle: 'medium' } };
const FONT = '11px system-ui, sans-serif';

function colours() {
  const read = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return { text: read('--muted'), line: read('--line'), series: [read('--series-1'), read('--series-2')], soft: read('--accent-soft') };
}

// `data` is [seconds, values, values]; `bars` draws columns, else lines.
export function Chart({ data, labels, bars, format, label }) {
  const host = useRef();
  const plot = useRef();
  const look = remembered.value.theme;
  useEffect(() => {
    const colour = colours();
    const axis = { stroke: colour.text, font: FONT, grid: { stroke: colour.line, width: 1 }, ticks: { show: false } };
    const paths = bars ? uPlot.paths.bars({ size: [0.7, 40], radius: 0.15 }) : undefined;
    plot.current = new uPlot({
      width: host.current.clientWidth,
      height: host.current.clientHeight,
      legend: { show: false },
      cursor: { drag: { x: false, y: false }, points: { show: !bars } },
      scales: { x: bars ? { range: (_, low, high) => [low - 40, high + 40] } : {}, y: { range: (_, low, high) => [0, Math.max(4, high * 1.1)] } },
      axes: [{ ...axis, grid: { show: false }, size: 26, space: 75, values: (_, at) => at.map((t) => new Date(t * 1000).toLocaleTimeString('en-GB', TIME[bars ? 'minutes' : 'seconds'])) },
        { ...axis, size: 48, space: 34, values: (_, at) => at.map(format || String) }],
      series: [{}, ...labels.map((text, at) => ({
        label: text, stroke: colour.series[at], width: bars ? 0 : 1.6, points: { show: false }, paths,
        fill: bars ? colour.series[at] : at === 0 ? colour.soft : undefined,
      }))],
    }, data, host.current);
    const sizes = new ResizeObserver(() => plot.current.setSize({ width: host.current.clientWidth, height: host.current.clientHeight }));
    sizes.observe(host.current);
    return () => {
      sizes.disconnect();
      plot.current.destroy();
    };
  }, [look]);
  useEffect(() => { plot.current.setData(data); }, [data]);
  return html`<div class="chart" ref=${host} role="img" aria-label=${label}></div>`;
}
