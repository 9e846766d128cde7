import { MbridgeError } from '../../base/errors.js';
import type { ChatMessage, ChatOptions, ChatTemplate, RenderedChat, Span } from './chat-template.js';

const PROBE = 'PROBE';
const USER: ChatMessage = { role: 'user', content: PROBE };
const ASSISTANT: ChatMessage = { role: 'assistant', content: PROBE };

/** How a template begins and ends what the assistant says. */
interface Turn {
  readonly begin: string;
  readonly end: string;
}

/**
 * A conversation as text, and where in it the assistant speaks: by the template's own `{% generation %}` marks, else
 * from after the prompt for an answer to the token that ends the turn, that one included.
 * @param special contents of the special tokens
 * @throws MbridgeError MB_CHAT_TEMPLATE, or MB_CHAT_SPANS (exit 7) where the spans cannot be told for sure
 */
export function renderWithSpans(
  template: ChatTemplate,
  messages: readonly ChatMessage[],
  options: ChatOptions,
  special: readonly string[],
): Required<RenderedChat> {
  const { text, spans } = template.render(messages, options);
  if (spans !== undefined) return { text, spans };
  const { begin, end } = turnOf(template, options, special);
  const found: Span[] = [];
  for (let at = text.indexOf(begin); at >= 0;) {
    const start = at + begin.length;
    const stop = text.indexOf(end, start);
    // What follows the last one is a prompt for an answer.
    if (stop >= 0) found.push({ start, end: stop + end.length });
    at = text.indexOf(begin, start);
  }
  const turns = messages.filter(({ role }) => role === 'assistant').length;
  if (found.length !== turns) throw noSpans(`${turns} answers, ${found.length} places that begin and end as one`);
  return { text, spans: found };
}

function turnOf(template: ChatTemplate, options: ChatOptions, special: readonly string[]): Turn {
  const render = (messages: readonly ChatMessage[], prompt: boolean): string => {
    return template.render(messages, { ...options, add_generation_prompt: prompt }).text;
  };
  const asked = render([USER], false);
  const prompt = render([USER], true);
  const answered = render([USER, ASSISTANT], false);
  const answer = answered.lastIndexOf(PROBE);
  const after = answered.slice(answer + PROBE.length).trimStart();
  const end = special.find((token) => token !== '' && after.startsWith(token));
  if (end === undefined || !prompt.startsWith(asked)) throw noSpans('its turns have no end of their own');
  // Where every conversation ends with a prompt, one stands between question and answer.
  const between = answered.slice(answered.indexOf(PROBE) + PROBE.length, answer).trimStart();
  const begin =
    prompt.length > asked.length ? prompt.slice(asked.length) : between.slice(between.startsWith(end) ? end.length : 0);
  // A prompt may begin the answer with its thoughts, which are left out of earlier answers.
  const bare = begin.trimStart().replace(/<think>\s*(<\/think>\s*)?$/, '');
  if (bare === '') throw noSpans('its turns have no beginning of their own');
  return { begin: bare, end };
}

function noSpans(found: string): MbridgeError {
  return new MbridgeError(
    'io',
    'MB_CHAT_SPANS',
    `the chat template does not show where the assistant speaks: ${found}`,
    {
      hint: 'put {% generation %} and {% endgeneration %} around the answers in the template',
    },
  );
}
