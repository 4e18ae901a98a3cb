// A conversation with one model: images, tools and thinking where the model can.
import { html, useEffect, useRef, useState } from '../../html.js';
import { Empty, Icon, Panel, Select } from '../../parts/controls.js';
import { can, ModelPicker, useChoice } from '../../parts/model_picker.js';
import { attempt, toast } from '../../store.js';
import { Meta, Spoken, useSpeech } from './speech.js';

const MOST_IMAGE_BYTES = 8e6;
const CLOCK = JSON.stringify([{ name: 'get_time', description: 'The time in a city', parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] } }], null, 2);

function read(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = reject;
    reader.readAsDataURL(file);
  });
}

// What goes to the fleet for a conversation.
function messages(turns, system) {
  const said = turns.map(({ role, text, images, calls }) => ({
    role,
    content: images && images.length ? [{ type: 'text', text }, ...images.map((image) => ({ type: 'image', image }))] : text,
    ...(calls && calls.length ? { tool_calls: calls } : {}),
  }));
  return system ? [{ role: 'system', content: system }, ...said] : said;
}

function Options({ options, set, model }) {
  const number = (name, label, rest) => html`<label class="field"><span>${label}</span><input type="number" value=${options[name]} onInput=${(event) => set({ ...options, [name]: event.target.value })} ...${rest} /></label>`;
  return html`<label class="field"><span>System prompt</span><textarea rows="2" value=${options.system} onInput=${(event) => set({ ...options, system: event.target.value })}></textarea></label>
    <div class="pair">${number('temperature', 'Temperature', { min: 0, max: 5, step: 0.1, placeholder: 'default' })}${number('max_tokens', 'Most tokens', { min: 1, placeholder: 'default' })}</div>
    ${can(model, 'thinking') !== false && html`<${Select} hidden=${false} label="Thinking" value=${options.think} onChange=${(think) => set({ ...options, think })} options=${[['auto', 'As the model does'], 'off', 'on', 'low', 'medium', 'high']} />`}
    ${can(model, 'tools') !== false && html`<label class="check"><input type="checkbox" checked=${options.useTools} onChange=${(event) => set({ ...options, useTools: event.target.checked })} />Offer tools</label>
      ${options.useTools && html`<label class="field"><span>Tools (JSON)</span><textarea class="mono" rows="6" spellcheck=${false} value=${options.tools} onInput=${(event) => set({ ...options, tools: event.target.value })}></textarea></label>`}`}`;
}

function Turn({ turn }) {
  return html`<div class=${`turn ${turn.role}`}><span class="who">${turn.role === 'user' ? 'You' : turn.model}</span>
    ${turn.images && turn.images.length ? html`<div class="thumbs">${turn.images.map((each) => html`<img src=${each} alt="Attached" />`)}</div>` : null}
    ${turn.state ? html`<${Spoken} state=${turn.state} /><${Meta} ...${turn} />` : html`<div class="text">${turn.text}</div>`}</div>`;
}

export default function Chat() {
  const choice = useChoice('chat');
  const [turns, setTurns] = useState([]);
  const [text, type] = useState('');
  const [images, attach] = useState([]);
  const [options, set] = useState({ system: '', temperature: '', max_tokens: '', think: 'auto', useTools: false, tools: CLOCK });
  const speech = useSpeech();
  const box = useRef();
  const { model } = choice;
  const sees = can(model, 'vision');
  useEffect(() => { if (box.current) box.current.scrollTop = box.current.scrollHeight; });
  const send = async (event) => {
    event.preventDefault();
    if (!text.trim() || speech.busy || !model) return;
    let tools;
    try {
      tools = options.useTools && can(model, 'tools') !== false ? JSON.parse(options.tools) : undefined;
    } catch {
      toast('The tools are not valid JSON.', 'bad');
      return;
    }
    const asked = [...turns, { role: 'user', text, images }];
    setTurns(asked);
    type('');
    attach([]);
    const done = await speech.say('chat', {
      backend: choice.named, model: model.name, messages: messages(asked, options.system), tools,
      think: can(model, 'thinking') === false ? undefined : options.think,
      temperature: options.temperature === '' ? undefined : Number(options.temperature),
      max_tokens: options.max_tokens === '' ? undefined : Number(options.max_tokens),
    });
    if (!done) return;
    const parts = done.state.parts;
    const answer = parts.filter((each) => each.kind === 'text').map((each) => each.text).join('');
    const calls = parts.filter((each) => each.kind === 'call').map(({ name, arguments: given }) => ({ name, arguments: given || '{}' }));
    setTurns((old) => [...old, { role: 'assistant', text: answer, calls, model: model.name, ...done }]);
  };
  const pick = (event) => attempt(async () => {
    const files = [...event.target.files].filter((file) => file.type.startsWith('image/'));
    if (files.some((file) => file.size > MOST_IMAGE_BYTES)) toast('An image may have 8 MB.', 'bad');
    attach([...images, ...(await Promise.all(files.filter((file) => file.size <= MOST_IMAGE_BYTES).map(read)))]);
    event.target.value = '';
  });
  const enter = (event) => { if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) send(event); };
  return html`<div class="play">
    <section class="panel" aria-label="Conversation">
      <div class="talk" tabindex="0" role="log" aria-label="Messages" ref=${box}>
        ${turns.map((turn) => html`<${Turn} turn=${turn} />`)}
        ${speech.busy && html`<div class="turn"><span class="who">${model && model.name}</span>${speech.state && html`<${Spoken} state=${speech.state} busy=${true} />`}</div>`}
        ${!turns.length && !speech.busy ? html`<${Empty} title=${choice.ready && !model ? 'No model can chat' : 'Ask something'}>${choice.ready && !model ? html`Add a backend, or pull a model, under <a href="#/backends">Backends</a>.` : 'Each question is a job of its own; its link leads to its log.'}<//>` : null}
      </div>
      <form class="composer" onSubmit=${send}>
        ${images.length ? html`<div class="thumbs">${images.map((each, at) => html`<button type="button" class="quiet" aria-label="Remove the image" onClick=${() => attach(images.filter((_, n) => n !== at))}><img src=${each} alt="Attached" /></button>`)}</div>` : null}
        <label><span class="hidden-label">Message</span><textarea rows="2" placeholder="Message" value=${text} onInput=${(event) => type(event.target.value)} onKeyDown=${enter}></textarea></label>
        <div class="row">${sees !== false ? html`<label class="button" tabindex="-1">Attach images<input class="hidden-label" type="file" accept="image/*" multiple onChange=${pick} /></label>` : html`<span class="muted small">This model takes no images.</span>`}
          <span class="grow"></span>
          <button type="button" class="quiet" disabled=${speech.busy || !turns.length} onClick=${() => setTurns([])}>Clear</button>
          ${speech.busy ? html`<button type="button" class="danger" onClick=${speech.halt}><${Icon} name="stop" />Stop</button>` : html`<button class="primary" disabled=${!text.trim() || !model}>Send</button>`}</div>
      </form>
    </section>
    <${Panel} title="Model"><div class="form"><${ModelPicker} choice=${choice} /><${Options} options=${options} set=${set} model=${model} /></div><//>
  </div>`;
}
