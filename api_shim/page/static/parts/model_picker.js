// Picks a backend and a model for one kind of job; the last choice of each kind is remembered.
import { html, useEffect } from '../html.js';
import { overview, remember, remembered, useModels } from '../store.js';
import { Select } from './controls.js';

const KINDS = ['chat', 'embed', 'image', 'rerank'];

// Kinds of jobs that a model does: as its server says, else as its backend can.
export function kindsOf(model, backend) {
  const told = KINDS.filter((kind) => model.traits.includes(kind));
  if (told.length) return told;
  return KINDS.filter((kind) => backend.capabilities.includes(kind) && !model.lacks.includes(kind));
}

// What a model can take: true, false, or null where its server does not say.
export function can(model, trait) {
  if (!model) return null;
  if (model.traits.includes(trait)) return true;
  return model.lacks.includes(trait) ? false : null;
}

// The choice for `slot` (chat, embed, image, other) among models that do `kind`.
export function useChoice(kind, slot = kind) {
  const models = useModels(useEffect);
  const state = overview.value;
  const backends = new Map((state ? state.backends : []).map((each) => [each.name, each]));
  const fit = (models || []).filter((each) => backends.has(each.backend) && kindsOf(each, backends.get(each.backend)).includes(kind));
  const last = remembered.value;
  const offered = [...new Set(fit.map((each) => each.backend))];
  const wanted = last[`${slot}_backend`] || last.backend;
  const backend = offered.includes(wanted) ? wanted : offered[0] || '';
  const here = fit.filter((each) => each.backend === backend).sort((a, b) => Number(b.warm || 0) - Number(a.warm || 0) || a.name.localeCompare(b.name));
  const model = here.find((each) => each.name === last[slot]) || here[0] || null;
  return {
    ready: Boolean(models && state), offered, here, backend, model, slot,
    pickBackend: (name) => remember({ [`${slot}_backend`]: name, backend: name }),
    pickModel: (name) => remember({ [slot]: name, [`${slot}_backend`]: backend }),
  };
}

export function ModelPicker({ choice, title = '' }) {
  return html`<${Select} hidden=${false} label=${`${title}Backend`} value=${choice.backend} onChange=${choice.pickBackend} options=${choice.offered} />
    <${Select} hidden=${false} label=${`${title}Model`} value=${choice.model ? choice.model.name : ''} onChange=${choice.pickModel}
      options=${choice.here.map((each) => [each.name, `${each.name}${each.warm ? ' (warm)' : ''}`])} />`;
}
