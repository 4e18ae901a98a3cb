// Numbers, times and sizes as text. Pure.

const NUMBER = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const COMPACT = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });

export const none = '–';

export function count(value) {
  if (value === null || value === undefined) return none;
  return Math.abs(value) >= 100000 ? COMPACT.format(value) : NUMBER.format(value);
}

export function rate(perSecond) {
  if (perSecond === null || perSecond === undefined) return none;
  if (perSecond === 0) return '0';
  return perSecond >= 100 ? NUMBER.format(perSecond) : perSecond.toPrecision(2).replace(/\.0$/, '');
}

export function span(seconds) {
  if (seconds === null || seconds === undefined || !isFinite(seconds)) return none;
  const s = Math.max(0, seconds);
  if (s < 0.9995) return `${Math.round(s * 1000)} ms`;
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 90) return `${Math.round(s)} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  if (s < 129600) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} d`;
}

export const ms = (milliseconds) => span(milliseconds === null || milliseconds === undefined ? null : milliseconds / 1000);

export function ago(unix, now = Date.now() / 1000) {
  if (!unix) return none;
  const past = now - unix;
  return past < 1.5 ? 'now' : `${span(past)} ago`;
}

export function clock(unix) {
  if (!unix) return none;
  return new Date(unix * 1000).toLocaleTimeString('en-GB', { hour12: false });
}

export function ahead(unix, now = Date.now() / 1000) {
  return unix > now ? `in ${span(unix - now)}` : 'now';
}

export function date(unix) {
  if (!unix) return none;
  return new Date(unix * 1000).toLocaleString('en-GB', { dateStyle: 'medium', timeStyle: 'medium' });
}

export function bytes(size) {
  if (size === null || size === undefined) return none;
  const units = ['B', 'KB', 'MB', 'GB', 'TB'];
  let value = size;
  let at = 0;
  while (value >= 1000 && at < units.length - 1) {
    value /= 1000;
    at += 1;
  }
  return `${value >= 100 || at === 0 ? Math.round(value) : value.toFixed(1)} ${units[at]}`;
}

export function many(n, noun, plural = `${noun}s`) {
  return `${count(n)} ${n === 1 ? noun : plural}`;
}

export const short = (id) => (id || '').slice(0, 8);
