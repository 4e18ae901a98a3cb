// A list of many rows, of which only those in sight are in the document.
import { html, useEffect, useRef, useState } from '../html.js';

const SPARE = 12;

// `row(item, at)` makes the cells; `onEnd` is called when the end comes in sight, and for each other
// `items` while it is: a page may add none.
export function VirtualList({ label, columns, className, items, row, onEnd, onOpen, tail }) {
  const host = useRef();
  const [window_, set] = useState({ top: 0, height: 600, size: 30 });
  const [current, point] = useState(-1);
  useEffect(() => {
    const measure = () => set((old) => ({
      ...old,
      height: host.current.clientHeight,
      size: parseFloat(getComputedStyle(document.documentElement).fontSize) * 2.25,
    }));
    measure();
    const sizes = new ResizeObserver(measure);
    sizes.observe(host.current);
    return () => sizes.disconnect();
  }, []);
  const first = Math.max(0, Math.floor(window_.top / window_.size) - SPARE);
  const last = Math.min(items.length, Math.ceil((window_.top + window_.height) / window_.size) + SPARE);
  useEffect(() => { if (last >= items.length - SPARE) onEnd(); }, [last, items]);
  const move = (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 15, PageUp: -15 }[event.key];
    if (event.key === 'Enter' && event.target === host.current && items[current]) onOpen(items[current]);
    if (!step) return;
    event.preventDefault();
    const next = Math.min(items.length - 1, Math.max(0, current + step));
    point(next);
    const top = next * window_.size;
    if (top < host.current.scrollTop) host.current.scrollTop = top;
    if (top + window_.size > host.current.scrollTop + window_.height) host.current.scrollTop = top + window_.size - window_.height;
  };
  return html`<div class="list" role="table" aria-label=${label} aria-rowcount=${items.length + 1}>
    <div role="rowgroup"><div class=${`list-row list-head ${className}`} role="row" aria-rowindex="1">
      ${columns.map(([text, hide]) => html`<span role="columnheader" class=${hide || ''}>${text}</span>`)}</div></div>
    <div class="list-scroll" role="rowgroup" tabindex="0" aria-label=${`Rows of ${label}`} ref=${host} onKeyDown=${move}
      onScroll=${(event) => { const { scrollTop } = event.currentTarget; set((old) => ({ ...old, top: scrollTop })); }}>
      <div class="list-body" role="presentation" style=${{ height: `${items.length * window_.size}px`, position: 'relative' }}>
        ${items.slice(first, last).map((item, at) => html`<div key=${item.id} role="row" aria-rowindex=${first + at + 2}
          class=${`list-row ${className} ${first + at === current ? 'current' : ''}`} style=${{ top: `${(first + at) * window_.size}px` }}>${row(item)}</div>`)}
      </div>
      ${tail}
    </div>
  </div>`;
}
