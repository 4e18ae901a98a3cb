// Images from a prompt, with previews and progress while they are made.
import { html, useState } from '../../html.js';
import { Empty, Icon, Meter, Notice, Panel } from '../../parts/controls.js';
import { ModelPicker, useChoice } from '../../parts/model_picker.js';
import { Meta, useSpeech } from './speech.js';

const SIZES = ['256x256', '512x512', '768x768', '1024x1024', '1024x576', '576x1024'];

export default function Image() {
  const choice = useChoice('image');
  const speech = useSpeech();
  const [fields, set] = useState({ prompt: '', negative_prompt: '', size: '512x512', count: '1', steps: '', seed: '' });
  const change = (name) => (event) => set({ ...fields, [name]: event.target.value });
  const run = (event) => {
    event.preventDefault();
    const [width, height] = fields.size.split('x').map(Number);
    speech.say('image', {
      backend: choice.named, model: choice.model.name, prompt: fields.prompt, negative_prompt: fields.negative_prompt, width, height,
      count: Number(fields.count) || 1, steps: fields.steps === '' ? undefined : Number(fields.steps), seed: fields.seed === '' ? undefined : Number(fields.seed), partial_images: 2,
    });
  };
  const { state, busy } = speech;
  const pictures = state ? state.parts.filter((each) => each.kind === 'image') : [];
  const phase = state && state.phase;
  if (choice.ready && !choice.model) return html`<${Panel}><${Empty} title="No model makes images">Add a backend that does, under <a href="#/backends">Backends</a>.<//><//>`;
  return html`<div class="play">
    <${Panel} title="Images" actions=${state && html`<${Meta} ...${speech} />`}><div class="stack" aria-live="polite">
      ${busy && html`<div class="stack"><span>${phase ? `${phase.phase}${phase.progress ? `, ${Math.round(phase.progress * 100)} %` : ''}` : state && state.status === 'running' ? 'generating' : 'waiting'}</span><${Meter} value=${(phase && phase.progress) || 0} of=${1} label="Progress" /></div>`}
      ${state && state.end && state.end.type === 'failed' ? html`<${Notice} tone="bad"><p>${state.end.message}</p><//>` : null}
      ${pictures.length ? html`<div class="pictures">${pictures.map((each) => (each.source ? html`<a href=${each.source} download="image.png"><img src=${each.source} alt=${each.partial ? 'Preview' : `${fields.prompt}, image ${each.index + 1}`} /></a>` : null))}</div>` : busy ? null : html`<${Empty} title="No image yet">Previews appear while it is made, if the backend sends them.<//>`}
    </div><//>
    <${Panel} title="Prompt"><form class="form" onSubmit=${run}><${ModelPicker} choice=${choice} />
      <label class="field"><span>Prompt</span><textarea rows="3" required value=${fields.prompt} onInput=${change('prompt')} placeholder="A lighthouse at dusk"></textarea></label>
      <label class="field"><span>Not</span><input value=${fields.negative_prompt} onInput=${change('negative_prompt')} /></label>
      <div class="pair"><label class="field"><span>Size</span><select onChange=${change('size')}>${SIZES.map((each) => html`<option selected=${each === fields.size}>${each}</option>`)}</select></label>
        <label class="field"><span>Images</span><input type="number" min="1" max="10" value=${fields.count} onInput=${change('count')} /></label></div>
      <div class="pair"><label class="field"><span>Steps</span><input type="number" min="1" max="500" placeholder="default" value=${fields.steps} onInput=${change('steps')} /></label>
        <label class="field"><span>Seed</span><input type="number" placeholder="random" value=${fields.seed} onInput=${change('seed')} /></label></div>
      ${busy ? html`<button type="button" class="danger" onClick=${speech.halt}><${Icon} name="stop" />Stop</button>` : html`<button class="primary" disabled=${!fields.prompt.trim() || !choice.model}>Generate</button>`}</form><//>
  </div>`;
}
