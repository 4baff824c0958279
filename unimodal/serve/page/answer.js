// An answer: what the model is told of a conversation, and what it says and draws, as it comes.

import { Refusal, sentence } from "./api.js";
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
function spelled({ role, text, images }) {
  const parts = images.map(({ url, position }, index) => {
    const image = { type: "image_url", image_url: { url } };
    return role === "user" ? image : { ...image, index, position };
  });
  if (role === "user") {
    if (!parts.length) return { role, content: text };
    return { role, content: text ? [...parts, { type: "text", text }] : parts };
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

/** Return the notes on the images of the message that is asked, as sentences. */
function notesOf(notes, index) {
  const head = `messages.${index}: `;
  const own = (notes ?? []).filter((note) => note.startsWith(head));
  return [...new Set(own)].map((note) => sentence(`your image was ${note.slice(head.length)}`));
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
    try {
      for await (const chunk of api.chunks({ messages, stream: true, ...answer.asked }, signal)) {
        await take(answer, chunk);
        changed();
      }
      answer.cut = cut;
      answer.notes = notesOf(answer.notes, messages.length - 1);
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
