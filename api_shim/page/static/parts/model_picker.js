// Picks a backend and a model for one kind of job; the last choice of each kind is remembered.
import { html, useEffect } from '../html.js';
import { aliases, overview, remember, remembered, useModels } from '../store.js';
import { Select } from './controls.js';

// In place of a backend: names that stand for models. A request for one names no backend.
const ALIASES = '*';
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

// The aliases as models, each with what the first of its targets that is there can do.
function aliased(models) {
  return aliases.value.filter((each) => !each.name.includes('*')).flatMap((each) => {
    const there = each.targets.flatMap((target) => models.filter((model) => model.name === target.model && (!target.backend || target.backend === model.backend)));
    return there.length ? [{ ...there[0], name: each.name, at: there[0].backend, backend: ALIASES }] : [];
  });
}

// The choice for `slot` (chat, embed, image, other) among models that do `kind`; until one is chosen,
// another than `unlike`, if there is one.
export function useChoice(kind, slot = kind, unlike = null) {
  const models = useModels(useEffect);
  const state = overview.value;
  const backends = new Map((state ? state.backends : []).map((each) => [each.name, each]));
  const known = [...(models || []), ...aliased(models || [])];
  const fit = known.filter((each) => backends.has(each.at || each.backend) && kindsOf(each, backends.get(each.at || each.backend)).includes(kind));
  const last = remembered.value;
  const offered = [...new Set(fit.map((each) => each.backend))];
  const wanted = last[`${slot}_backend`] || last.backend;
  const backend = offered.includes(wanted) ? wanted : offered[0] || '';
  const here = fit.filter((each) => each.backend === backend).sort((a, b) => Number(b.warm || 0) - Number(a.warm || 0) || a.name.localeCompare(b.name));
  const model = here.find((each) => each.name === last[slot]) || here.find((each) => !unlike || each.name !== unlike.name) || here[0] || null;
  return {
    ready: Boolean(models && state), offered, here, backend, model, slot,
    named: backend === ALIASES ? undefined : backend,
    pickBackend: (name) => remember({ [`${slot}_backend`]: name, backend: name }),
    pickModel: (name) => remember({ [slot]: name, [`${slot}_backend`]: backend }),
  };
}

export function ModelPicker({ choice, title = '' }) {
  return html`<${Select} hidden=${false} label=${`${title}Backend`} value=${choice.backend} onChange=${choice.pickBackend} options=${choice.offered.map((each) => [each, each === ALIASES ? 'by alias' : each])} />
    <${Select} hidden=${false} label=${`${title}Model`} value=${choice.model ? choice.model.name : ''} onChange=${choice.pickModel}
      options=${choice.here.map((each) => [each.name, `${each.name}${each.warm ? ' (warm)' : ''}`])} />`;
}
