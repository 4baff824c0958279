// An answer: what the model is told of a conversation, and what it says and draws, as it comes.

import { Refusal, sentence } from "./api.js";
import { written } from "./boxes.js";
import { isEdit, unveiled } from "./images.js";

// Who asks for a drawing wants no comparison with the one before, however alike the two are.
const ANEW = /^\W*(please\s+)?(draw|paint|sketch)\b/i;

/** Return the turns of a branch that the model is told of, each a list of messages: what was
 * stopped or failed is no part of the conversation. The last turn is the one that is asked. */
function turns(path) {
  const found = [];
  for (const message of path) {
    if (message.role === "user") found.push([message]);
    else if (message.status === "done") found.at(-1).push(message);
  }
  const asked = found.pop();
  return [...found.filter((turn) => turn.length === 2), asked];
}

/** Return a message as the API spells it. */
function spelled({ role, text, images, boxes = [] }) {
  const parts = images.map(({ url, position }, index) => {
    const image = { type: "image_url", image_url: { url } };
    return role === "user" ? image : { ...image, index, position };
  });
  if (role === "user") {
    const placed = boxes.length ? { boxes: boxes.map(written) } : {};
    if (!parts.length) return { role, content: text || null, ...placed };
    return { role, content: text ? [...parts, { type: "text", text }] : parts, ...placed };
  }
  return { role, content: text || null, ...(parts.length ? { images: parts } : {}) };
}

/** Take what a chunk tells into the answer. */
async function take(answer, chunk) {
  if (chunk.seed !== undefined) answer.seed = chunk.seed;
  if (chunk.notes) answer.notes = chunk.notes;
  const [choice] = chunk.choices;
  if (!choice) return;
  const { content, partial_images: partial, images } = choice.delta;
  if (content) answer.text += content;
  for (const one of partial ?? []) {
    const url = await unveiled(one.image_url.url);
    answer.partial = { url, position: one.position, number: one.partial_image_index };
  }
  for (const one of images ?? []) {
    answer.partial = null;
    answer.images.push({ url: one.image_url.url, position: one.position });
  }
}

/** Take a whole answer, the best of its candidates, and the others. */
function takeBest(answer, { choices: [choice], notes }) {
  const version = ({ message, seed, unsatisfied }) => ({
    text: message.content ?? "", seed, unsatisfied,
    images: (message.images ?? []).map(({ image_url: { url }, position }) => ({ url, position })),
  });
  Object.assign(answer, version(choice), { notes, others: choice.others.map(version) });
}

/** Exchange an answer with one of its candidates that was not kept. */
export function exchange(answer, index) {
  const { text, seed, unsatisfied, images } = answer;
  Object.assign(answer, answer.others[index]);
  answer.others[index] = { text, seed, unsatisfied, images };
}

/** Return the notes on the images of the message that is asked, in the server's words, and on
 * candidates that were not judged, as sentences. */
function notesOf(answer, index) {
  const [notes, head] = [answer.notes ?? [], `messages.${index}: `];
  const own = notes.filter((note) => note.startsWith(head))
    .map((note) => `your image: ${note.slice(head.length)}`);
  const isJudged = !answer.asked.candidates || answer.unsatisfied;
  const others = isJudged ? [] : notes.filter((note) => !note.startsWith("messages."));
  return [...new Set([...own, ...others])].map(sentence);
}

/** Return what is said of an answer that is the best of several, as sentences; null of others. */
export function verdict({ unsatisfied, others }) {
  if (!unsatisfied) return null;
  const best = `Best of ${others.length + 1}.`;
  if (!unsatisfied.length) return `${best} By the model's own answers, it has all of it.`;
  return `${best} Not satisfied, by the model's own answers: ${unsatisfied.join("; ")}.`;
}

/** The latest image before an answer: what an edit has changed. */
export function imageBefore(conversation, answer) {
  const isSeen = (one) => one.images.length && !["stopped", "failed"].includes(one.status);
  return conversation.pathTo(answer.parent).findLast(isSeen)?.images.at(-1) ?? null;
}

/** Ask for an answer, an empty message that stands at the end of its branch, and fill it as it
 * comes; `changed` is called after each change. Oldest turns that the model has no room for are left
 * out, and counted in `cut`. Throws a Refusal, or an AbortError. */
export async function fill(answer, conversation, api, signal, changed) {
  const all = turns(conversation.pathTo(answer.parent));
  const previous = conversation.pathTo(answer.parent).findLast((one) => one.cut)?.cut ?? 0;
  for (let cut = Math.min(previous, all.length - 1); ; cut += 1) {
    const messages = all.slice(cut).flat().map(spelled);
    const body = { messages, ...answer.asked };
    try {
      if (answer.asked.candidates) takeBest(answer, await api.whole(body, signal));
      else {
        for await (const chunk of api.chunks(body, signal)) {
          await take(answer, chunk);
          changed();
        }
      }
      answer.cut = cut;
      answer.notes = notesOf(answer, messages.length - 1);
      break;
    } catch (error) {
      const canBeCut = error instanceof Refusal && error.isTooLong && cut < all.length - 1;
      if (!canBeCut) throw error;
    }
  }
  const before = imageBefore(conversation, answer);
  const asked = conversation.messages.get(answer.parent);
  const isAnew = ANEW.test(asked.text) && !asked.images.length;
  if (before && answer.images.length === 1 && !isAnew) {
    answer.compare = await isEdit(before.url, answer.images[0].url);
  }
}
