// The server's own API (docs/serving.md), at the page's own origin.

const MODELS = "/v1/models";
const CHAT = "/v1/chat/completions";
const KEY = "unimodal-key";
const BROKEN = "The connection broke before the answer was complete. Try again.";

/** A Refusal is an answer that did not come, as a sentence for people. */
export class Refusal extends Error {
  constructor(sentence, { status = 0, code = null, param = null } = {}) {
    super(sentence);
    this.status = status;
    this.code = code;
    this.param = param;
  }

  /** Whether the server wants an API key, or another one. */
  get wantsKey() {
    return this.status === 401;
  }

  /** Whether a conversation without its oldest turns may be answered. */
  get isTooLong() {
    const tooMany = this.code === "too_long" && this.param === "messages";
    const tooLarge = this.status === 413; // all of the request, its images above all
    return this.code === "context_length_exceeded" || tooMany || tooLarge;
  }
}

/** Return a sentence that begins with a capital and ends with a full stop. */
export function sentence(words) {
  const said = words.trim();
  return said.charAt(0).toUpperCase() + said.slice(1) + (/[.!?]$/.test(said) ? "" : ".");
}

function refusalOf(error, status, wait) {
  const later = wait ? ` Try again in ${wait} s.` : "";
  const said = error?.message ?? `The server answered with status ${status}, and no words`;
  return new Refusal(sentence(said) + later, { status, code: error?.code, param: error?.param });
}

/** Yield the data of server-sent events (HTML, 9.2.6). Throws a Refusal for an event `error`. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const lines = block.split("\n");
      const data = lines.filter((line) => line.startsWith("data: ")).map((line) => line.slice(6));
      const said = data.join("\n");
      if (lines.includes("event: error")) throw refusalOf(JSON.parse(said).error, 200);
      if (said) yield said;
    }
  }
}

export class Api {
  constructor() {
    this.key = stored("sessionStorage") ?? stored("localStorage") ?? "";
  }

  /** Use an API key if the server knows it; else the one before stays, and is kept where it was.
   * Throws a Refusal. */
  async take(key, forLong) {
    const before = this.key;
    this.key = key;
    try {
      await this.model();
    } catch (error) {
      this.key = before;
      throw error;
    }
    this.#keep(key, forLong);
  }

  /** Keep an API key until the page is closed or, if `forLong`, in this browser. */
  #keep(key, forLong) {
    for (const storage of ["sessionStorage", "localStorage"]) {
      try {
        window[storage].removeItem(KEY);
        if ((storage === "localStorage") === forLong) window[storage].setItem(KEY, key);
      } catch {
        // A browser that keeps nothing knows the key until the page is closed.
      }
    }
  }

  async #fetch(path, options = {}) {
    const headers = { ...options.headers };
    if (this.key) headers.Authorization = `Bearer ${this.key}`;
    let answer;
    try {
      answer = await fetch(path, { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refusal("The server does not answer. See whether it still runs, then try again.");
    }
    if (answer.ok) return answer;
    const said = await answer.json().catch(() => ({}));
    throw refusalOf(said.error, answer.status, answer.headers.get("Retry-After"));
  }

  /** Return what the server says of its model. */
  async model() {
    const answer = await this.#fetch(MODELS);
    return (await answer.json()).data[0];
  }

  #ask(body, signal) {
    return this.#fetch(CHAT, {
      method: "POST", signal, body: JSON.stringify(body),
      headers: { "Content-Type": "application/json" },
    });
  }

  /** Return an answer as a whole. Throws a Refusal, or an AbortError when `signal` stops it. */
  async whole(body, signal) {
    const answer = await this.#ask(body, signal);
    try {
      return await answer.json();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refusal(BROKEN);
    }
  }

  /** Yield the chunks of an answer. Throws a Refusal, or an AbortError when `signal` stops it. */
  async *chunks(body, signal) {
    const answer = await this.#ask({ ...body, stream: true }, signal);
    try {
      for await (const data of events(answer.body)) {
        if (data === "[DONE]") return;
        yield JSON.parse(data);
      }
    } catch (error) {
      if (error instanceof Refusal || error.name === "AbortError") throw error;
    }
    throw new Refusal(BROKEN);
  }
}

/** Return the key that a storage has, by the storage's name: a browser that blocks storage throws
 * as soon as it is named. */
function stored(storage) {
  try {
    return window[storage].getItem(KEY);
  } catch {
    return null;
  }
}
