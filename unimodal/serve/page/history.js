// Conversations that survive a reload, in the browser's IndexedDB; where it has none, in memory.

import { Conversation } from "./tree.js";

const NAME = "unimodal";
const HEADS = "conversations";
const MESSAGES = "messages";

/** Return the result of a request to the database. */
function result(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

function opened() {
  const request = indexedDB.open(NAME, 1);
  request.onupgradeneeded = () => {
    request.result.createObjectStore(HEADS, { keyPath: "id" });
    const messages = request.result.createObjectStore(MESSAGES, { keyPath: "id" });
    messages.createIndex("conversation", "conversation");
  };
  return result(request);
}

export class History {
  /** `failed` is called with a sentence when something cannot be kept. */
  constructor(failed) {
    this.failed = failed;
    this.database = null;
  }

  async open() {
    try {
      this.database = await opened();
    } catch {
      this.failed("This browser keeps no history here: conversations last until the page is"
        + " closed.");
    }
  }

  /** Do something in a transaction; return whether it was done. */
  async #within(mode, work) {
    if (!this.database) return false;
    try {
      const transaction = this.database.transaction([HEADS, MESSAGES], mode);
      work(transaction.objectStore(HEADS), transaction.objectStore(MESSAGES));
      await new Promise((resolve, reject) => {
        transaction.oncomplete = resolve;
        transaction.onabort = () => reject(transaction.error);
      });
      return true;
    } catch {
      this.failed("The latest change could not be kept: the browser's storage may be full. Delete"
        + " conversations that you no longer need.");
      return false;
    }
  }

  /** Return all conversations, the latest first. An answer that was in work when its page went away
   * was stopped by that. */
  async all() {
    if (!this.database) return [];
    const reading = this.database.transaction([HEADS, MESSAGES]);
    const [heads, messages] = await Promise.all(
      [HEADS, MESSAGES].map((name) => result(reading.objectStore(name).getAll())));
    const found = Map.groupBy(messages, (one) => one.conversation);
    for (const one of messages) if (one.status === "working") one.status = "stopped";
    heads.sort((a, b) => b.updated - a.updated);
    return heads.map((head) => new Conversation(head, found.get(head.id) ?? []));
  }

  /** Keep a conversation's head, and messages of it that have changed. */
  keep(conversation, ...messages) {
    return this.#within("readwrite", (heads, kept) => {
      heads.put(conversation.head);
      for (const { partial: _, ...message } of messages) kept.put(message);
    });
  }

  /** Forget a conversation. */
  remove(conversation) {
    return this.#within("readwrite", (heads, kept) => {
      heads.delete(conversation.id);
      for (const id of conversation.messages.keys()) kept.delete(id);
    });
  }
}
