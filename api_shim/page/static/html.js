// What every view needs of the libraries, under one name.
import { Fragment, h, render } from 'preact';
import htm from 'htm';

export { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';
export { batch, computed, effect, signal, useComputed, useSignal } from '@preact/signals';
export { Fragment, render };
export const html = htm.bind(h);
