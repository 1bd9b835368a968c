import type { DeadLetterReason, Message, RetryReason } from './message.ts';
import type { Key } from './store.ts';

/** What every event tells. The key is a digest and safe to log; a message id may be personal data. */
export interface EventBase {
  readonly scope: string;
  readonly message: Message;
  /** Absent if the message has no valid key. */
  readonly key: Key | undefined;
}

/** What a receiver tells about its work, for metrics and logs. Duplicates are the normal case, not errors. */
export interface ReceiverEvents {
  /** A delivery came in. */
  received: EventBase;
  /** A handler is about to run. `orphaned`: an earlier owner's lease ended before it settled. */
  claimed: EventBase & { readonly attempt: number; readonly orphaned: boolean };
  /** `completed`: handled before, `ageMs` ago. `batch`: the same message twice in one batch. */
  duplicate: EventBase & { readonly kind: 'completed' | 'batch'; readonly ageMs: number };
  /** Another worker runs the message. `remainingMs`: what is left of its lease. */
  busy: EventBase & { readonly remainingMs: number };
  /** Handled and recorded. `durationMs`: of the handler. */
  completed: EventBase & { readonly attempt: number; readonly durationMs: number };
  /** To be tried again after `afterMs`. */
  released: EventBase & { readonly reason: RetryReason; readonly afterMs: number; readonly attempt: number; readonly error: unknown };
  /** Given up, or refused before it got a key. */
  parked: EventBase & { readonly reason: DeadLetterReason; readonly detail: string; readonly attempts: number };
  /** A claim was lost while its handler ran; nothing of it was recorded. */
  fenced: EventBase & { readonly attempt: number };
  /** Same key as a known message, other payload. */
  mismatch: EventBase;
  /** The store can't be used; nothing is handled until it can. Not tied to a message. */
  storeDown: { readonly scope: string; readonly error: unknown; readonly pauseMs: number };
  /** The store answers again. */
  storeUp: { readonly scope: string };
}

/** Hooks by event name. A hook that throws or rejects changes nothing. */
export type EventHooks = { readonly [Name in keyof ReceiverEvents]?: (event: ReceiverEvents[Name]) => void };

/** The events of one message. */
export type MessageEvent = { [Name in keyof ReceiverEvents]: ReceiverEvents[Name] extends EventBase ? Name : never }[keyof ReceiverEvents];

/** Tells an event of one message. What all such events have in common is added only where somebody listens. */
export type Tell = <Name extends MessageEvent>(
  name: Name,
  job: { readonly message: Message; readonly key: Key },
  details: Omit<ReceiverEvents[Name], keyof EventBase>,
) => void;

export type Emit = <Name extends keyof ReceiverEvents>(name: Name, event: ReceiverEvents[Name]) => void;

export function emitter(hooks: EventHooks): Emit {
  return (name, event) => {
    const hook = hooks[name] as ((event: unknown) => unknown) | undefined;
    if (!hook) return;
    try {
      const returned = hook(event);
      if (returned instanceof Promise) returned.catch(() => {});
    } catch {
      // A broken metric must not decide what becomes of a payment.
    }
  };
}

export function teller(scope: string, hooks: EventHooks, emit: Emit): Tell {
  return (name, { message, key }, details) => {
    if (hooks[name]) emit(name, { scope, message, key: key || undefined, ...details } as never);
  };
}
