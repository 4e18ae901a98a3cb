// A line of the last values, without axes, below a number.
import { html } from '../html.js';

export function Sparkline({ values }) {
  if (values.length < 2) return null;
  const most = Math.max(...values, 1e-9);
  const step = 100 / (values.length - 1);
  const points = values.map((value, at) => `${(at * step).toFixed(2)},${(30 - (value / most) * 27).toFixed(2)}`);
  return html`<svg class="spark" viewBox="0 0 100 30" preserveAspectRatio="none" aria-hidden="true">
    <path class="area" d=${`M0,30 L${points.join(' L')} L100,30 Z`} /><path d=${`M${points.join(' L')}`} /></svg>`;
}
