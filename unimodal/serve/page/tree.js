// A conversation is a tree of messages: an edited message, or another answer, is a new branch
// beside the old one. `leaf` is the id of the message with which the branch that is shown ends,
// `undone` of the one with which it ended before turns were undone.
//
// A message has id, conversation, parent (an id, or null), role (user or assistant), order, text
// and images ({url, position}: how many characters of the text come before each); one of the user
// has boxes (boxes.js). An answer has, too, status (working, done, stopped, failed), seed, the
// settings that it was asked with and, of several candidates, what it lacks (unsatisfied) and the
// others ({text, images, seed, unsatisfied}).

/** Return an id that no other thing has. */
export function newId() {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join("");
}

export class Conversation {
  constructor(kept = {}, messages = []) {
    this.id = kept.id ?? newId();
    this.title = kept.title ?? "";
    this.updated = kept.updated ?? Date.now();
    this.leaf = kept.leaf ?? null;
    this.undone = kept.undone ?? null;
    this.messages = new Map(messages.map((message) => [message.id, message]));
  }

  /** What is kept of it beside its messages. */
  get head() {
    const { id, title, updated, leaf, undone } = this;
    return { id, title, updated, leaf, undone };
  }

  /** The messages of the branch that is shown, from the first. */
  get path() {
    return this.pathTo(this.leaf);
  }

  /** The messages from the first to the one with an id. */
  pathTo(id) {
    const found = [];
    for (let one = this.messages.get(id); one; one = this.messages.get(one.parent)) {
      found.unshift(one);
    }
    return found;
  }

  /** The messages that follow one, the oldest first; of null the first messages. */
  after(parent) {
    const found = [...this.messages.values()].filter((one) => one.parent === parent);
    return found.sort((a, b) => a.order - b.order);
  }

  /** A message and those that stand in its place in other branches. */
  versions(message) {
    return this.after(message.parent);
  }

  /** Add a message behind another, and show its branch. */
  add(parent, fields) {
    const order = 1 + Math.max(-1, ...[...this.messages.values()].map((one) => one.order));
    const basis = { id: newId(), conversation: this.id, parent, order, text: "", images: [] };
    const message = { ...basis, ...fields };
    this.messages.set(message.id, message);
    this.leaf = message.id;
    this.updated = Date.now();
    if (!this.title && message.text) this.title = message.text.slice(0, 80);
    return message;
  }

  /** Show the branch of a message, to its latest end. */
  choose(message) {
    for (let next = message; next; next = this.after(next.id).at(-1)) this.leaf = next.id;
  }

  /** Show one turn less; it stays where `redo` finds it. */
  undo() {
    const asked = this.path.findLast((one) => one.role === "user");
    if (!asked) return;
    if (!this.#towardsUndone(this.leaf)) this.undone = this.leaf;
    this.leaf = asked.parent;
  }

  /** Show the turn that was undone here; where none was, the latest that follows. */
  redo() {
    const next = (id) => this.#towardsUndone(id) ?? this.after(id).at(-1);
    const asked = next(this.leaf);
    if (asked) this.leaf = next(asked.id)?.id ?? asked.id;
  }

  /** The message that follows one on the way to what was undone, if it is on that way. */
  #towardsUndone(id) {
    return this.pathTo(this.undone).find((one) => one.parent === id);
  }

  get canUndo() {
    return this.leaf !== null;
  }

  get canRedo() {
    return this.after(this.leaf).length > 0;
  }
}
