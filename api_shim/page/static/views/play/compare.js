// One question to two models, side by side.
import { html, useState } from '../../html.js';
import { Empty, Icon, Panel } from '../../parts/controls.js';
import { ModelPicker, useChoice } from '../../parts/model_picker.js';
import { Meta, Spoken, useSpeech } from './speech.js';

function Side({ name, choice, speech }) {
  return html`<${Panel} title=${`Model ${name}`} actions=${speech.busy ? html`<button type="button" class="tiny danger" onClick=${speech.halt}><${Icon} name="stop" />Stop</button>` : null}>
    <div class="form"><div class="pair"><${ModelPicker} choice=${choice} title=${`${name}: `} /></div>
      <div class="turn" aria-live="polite" style=${{ minHeight: '9rem' }}>${speech.state ? html`<${Spoken} state=${speech.state} busy=${speech.busy} /><${Meta} ...${speech} />` : html`<span class="muted">${speech.busy ? 'Sending…' : 'Its answer comes here.'}</span>`}</div></div>
  <//>`;
}

export default function Compare() {
  const left = useChoice('chat', 'chat');
  const right = useChoice('chat', 'other', left.model);
  const one = useSpeech();
  const two = useSpeech();
  const [text, type] = useState('');
  const busy = one.busy || two.busy;
  const ask = (event) => {
    event.preventDefault();
    if (!text.trim() || busy) return;
    for (const [choice, speech] of [[left, one], [right, two]]) {
      if (choice.model) speech.say('chat', { backend: choice.named, model: choice.model.name, messages: [{ role: 'user', content: text }] });
    }
  };
  if (left.ready && !left.model) return html`<${Panel}><${Empty} title="No model can chat" /><//>`;
  return html`<div class="stack"><section class="panel" aria-label="Question"><form class="composer" style=${{ borderTop: 0 }} onSubmit=${ask}>
      <label><span class="hidden-label">Question</span><textarea rows="2" placeholder="A question to both" value=${text} onInput=${(event) => type(event.target.value)}></textarea></label>
      <div class="row"><span class="grow"></span><button class="primary" disabled=${busy || !text.trim()}>Ask both</button></div></form></section>
    <div class="compare"><${Side} name="A" choice=${left} speech=${one} /><${Side} name="B" choice=${right} speech=${two} /></div></div>`;
}
