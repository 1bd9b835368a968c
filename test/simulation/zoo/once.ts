import type { Bug } from './bug.ts';

const look: Bug['look'] = [['leased', 'calls']];

/** Bugs of functions that run once. */
export const onceBugs: readonly Bug[] = [
  {
    name: 'answers a call with nothing while the first one runs elsewhere',
    wild: 'locks around jobs that skip what is locked: the caller takes it for done (W27)',
    look,
    patches: [{ file: 'src/once.ts', from: "case 'busy':\n      throw", to: "case 'busy':\n      return undefined;\n      throw" }],
  },
  {
    name: 'answers a call whose store can’t be reached as if it were done',
    wild: 'wrappers that swallow what their store throws (W13, W15)',
    look,
    patches: [{ file: 'src/once.ts', from: "case 'store':\n      throw", to: "case 'store':\n      return undefined;\n      throw" }],
  },
  {
    name: 'compares no arguments of calls with the same key',
    wild: 'Powertools: payload validation is off unless asked for (W26)',
    look,
    patches: [{ file: 'src/once.ts', from: 'fingerprint: compare,', to: 'fingerprint: false && compare,' }],
  },
];
