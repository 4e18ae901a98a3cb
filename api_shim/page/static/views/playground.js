// The playground: chat, two models compared, vectors, images; each request is a job like any other.
import { html } from '../html.js';
import { Tabs, View } from '../parts/controls.js';
import { remember, remembered } from '../store.js';
import Chat from './play/chat.js';
import Compare from './play/compare.js';
import Embed from './play/embed.js';
import Image from './play/image.js';

const TABS = [['chat', 'Chat', Chat], ['compare', 'Compare', Compare], ['embed', 'Embed', Embed], ['image', 'Image', Image]];

export default function Playground() {
  const tab = TABS.find(([name]) => name === remembered.value.tab) || TABS[0];
  const [name, text, Tab] = tab;
  return html`<${View} title="Playground">
    <${Tabs} label="What to try" tabs=${TABS.map(([each, label]) => [each, label])} value=${name} onChange=${(chosen) => remember({ tab: chosen })} />
    <div role="tabpanel" aria-label=${text}><${Tab} key=${name} /></div>
  <//>`;
}
