// The page: what happens when. Conversations are trees (tree.js), kept in the browser (history.js);
// answers come from the server's API (api.js, answer.js); thread.js shows them.

import { exchange, fill, verdict } from "./answer.js";
import { Api, Refusal } from "./api.js";
import { Boxes } from "./boxes.js";
import { Composer } from "./composer.js";
import { byId, element } from "./dom.js";
import { History } from "./history.js";
import { askForKey } from "./keys.js";
import { Settings } from "./settings.js";
import { Sidebar } from "./sidebar.js";
import { Thread } from "./thread.js";
import { Conversation } from "./tree.js";

const EXAMPLES = ["draw a red circle", "draw a purple heart", "draw two yellow stars"];
const THEMES = { system: "light", light: "dark", dark: "system" }; // what follows which
const OPEN = "unimodal-open"; // the conversation that a reload opens again
const TOAST_MS = 8000; // for each line

const api = new Api();
const history = new History((words) => toast(words));
const settings = new Settings();
const works = new Map(); // by a conversation's id, what stops its answer in work
let conversations = [];
let current = new Conversation();
let model = null;
let isDrawnSoon = false;

const thread = new Thread({
  changed: () => show(),
  partialImages: () => settings.partialImages,
  edit: (message, text) => ask({ ...message, text }, message.parent),
  choose: (message) => change(() => current.choose(message)),
  retry: (message) => answerAgain(message),
  again: (message) => runAgain(message),
  ask: (text) => ask({ text }),
  use: (url) => {
    composer.add(url, "the drawing");
    composer.words.focus();
  },
  seed: (seed) => {
    settings.setSeed(seed);
    toast(`The next answers have seed ${seed}.`, "Another each time", () => settings.setSeed(""));
  },
  compare: (message) => {
    message.compare = !message.compare;
    history.keep(current, message);
    show();
  },
  exchange: (message, index) => {
    exchange(message, index);
    history.keep(current, message);
    show();
    announce(`Kept instead: the drawing with seed ${message.seed}. ${verdict(message)}`);
  },
  key: async (message) => {
    if (await askForKey(api) && await meet()) runAgain(message);
  },
});
const boxes = new Boxes();
const composer = new Composer({
  boxes,
  send: (message) => ask(message),
  stop: () => stop(),
  tell: (words) => toast(words),
  editLast: () => {
    const last = current.path.findLast((one) => one.role === "user");
    if (last && !works.has(current.id)) thread.edit(last);
    return last;
  },
});
const sidebar = new Sidebar({ open, begin: () => open(new Conversation()), remove });

// --- what is shown --------------------------------------------------------------------------

function show(how) {
  const { path } = current;
  const isWorking = works.has(current.id);
  byId("welcome").hidden = path.length > 0;
  byId("title").textContent = current.title || "New conversation";
  document.title = current.title ? `${current.title} · unimodal` : "unimodal";
  enableTurns(current.canUndo, current.canRedo && !isWorking);
  composer.setWorking(isWorking);
  thread.show(current, how);
}

/** Enable undo and redo as far as they do something. The focus of one that does not goes to the
 * other, or to the message. */
function enableTurns(canUndo, canRedo) {
  const buttons = [byId("undo"), byId("redo")];
  const focused = buttons.find((one) => one === document.activeElement);
  buttons[0].disabled = !canUndo;
  buttons[1].disabled = !canRedo;
  if (focused?.disabled) (buttons.find((one) => !one.disabled) ?? byId("words")).focus();
}

/** Show what has changed with the next frame. */
function showSoon() {
  if (isDrawnSoon) return;
  isDrawnSoon = true;
  requestAnimationFrame(() => {
    isDrawnSoon = false;
    show();
  });
}

/** Tell those who hear the page. */
function announce(words) {
  byId("status").textContent = words;
}

let toastTimer = 0;
function toast(words, action, act) {
  const bar = byId("toast");
  const leave = () => { bar.hidden = true; };
  const button = action && element("button", { type: "button", text: action, click: () => {
    leave();
    act();
  } });
  bar.replaceChildren(element("p", { text: words }), ...(button ? [button] : []));
  bar.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(leave, TOAST_MS * words.split("\n").length);
}

// --- conversations --------------------------------------------------------------------------

function open(conversation) {
  current = conversation;
  thread.editing = null;
  try {
    sessionStorage.setItem(OPEN, conversation.id);
  } catch {
    // Then a reload begins anew; the list has what there was.
  }
  sidebar.list(conversations, current);
  show({ toEnd: true });
  // Where there is no pointer that hovers, the focus would open a keyboard over the page.
  if (matchMedia("(hover: hover)").matches) byId("words").focus();
}

/** Change which branch is shown. */
function change(act) {
  act();
  history.keep(current);
  thread.editing = null;
  show();
}

function remove(conversation) {
  works.get(conversation.id)?.abort();
  const place = conversations.indexOf(conversation);
  conversations = conversations.filter((one) => one !== conversation);
  history.remove(conversation);
  if (conversation === current) open(new Conversation());
  else sidebar.list(conversations, current);
  byId("new").focus();
  toast(`“${conversation.title || "An image"}” is deleted.`, "Undo", () => {
    conversations.splice(place, 0, conversation);
    history.keep(conversation, ...conversation.messages.values());
    open(conversation);
  });
}

// --- asking ---------------------------------------------------------------------------------

/** Ask something behind the end of the branch, or in the place of an earlier message, whose parent
 * is given. Returns whether it was taken. */
function ask({ text, images = [], boxes: placed = [] }, parent = current.leaf) {
  const asked = settings.read();
  if (!asked || works.has(current.id)) return false;
  if (!conversations.includes(current)) conversations.unshift(current);
  conversations.sort((a, b) => (b === current) - (a === current));
  thread.editing = null;
  const message = current.add(parent, { role: "user", text, images, boxes: placed });
  const answer = current.add(message.id, { role: "assistant", asked });
  history.keep(current, message);
  sidebar.list(conversations, current);
  run(current, answer);
  return true;
}

/** Answer the same message once more, with the same settings and another seed. */
function answerAgain(message) {
  if (works.has(current.id)) return;
  const { seed: _, ...asked } = message.asked;
  run(current, current.add(message.parent, { role: "assistant", asked }));
}

/** Try an answer again that did not come, with the settings as they are now. */
function runAgain(message) {
  const asked = settings.read();
  if (asked) run(current, Object.assign(message, { asked }));
}

/** Let the model fill an answer. */
async function run(conversation, answer) {
  if (works.has(conversation.id)) return;
  const controller = new AbortController();
  works.set(conversation.id, controller);
  const empty = { text: "", images: [], partial: null, error: null, notes: [], others: [],
    unsatisfied: null };
  Object.assign(answer, empty, { status: "working" });
  history.keep(conversation, answer);
  show({ toEnd: true });
  announce("Working on the answer.");
  try {
    await fill(answer, conversation, api, controller.signal, showSoon);
    answer.status = "done";
  } catch (error) {
    settle(answer, error);
  } finally {
    answer.partial = null;
    works.delete(conversation.id);
    // One that was deleted meanwhile must not come back.
    if (conversations.includes(conversation)) history.keep(conversation, answer);
    if (conversation === current) show();
    announce(saying(answer));
  }
}

/** Note how an answer ended that is not complete. */
function settle(answer, error) {
  if (error.name === "AbortError") {
    answer.status = "stopped";
    return;
  }
  const isTold = error instanceof Refusal;
  if (!isTold) console.error(error);
  const sentence = isTold ? error.message : "This page failed at the answer. Load it again.";
  const wantsKey = isTold && error.wantsKey;
  Object.assign(answer, { status: "failed", error: { sentence, wantsKey } });
}

function stop() {
  works.get(current.id)?.abort();
}

/** Return what a screen reader says of an answer that is over. */
function saying(answer) {
  if (answer.status === "failed") return answer.error.sentence;
  if (answer.status === "stopped") return "Stopped.";
  const count = answer.images.length;
  const images = count === 1 ? "One image" : `${count} images`;
  const drawn = count ? `${images} drawn, seed ${answer.seed}.` : "";
  const checked = verdict(answer) ?? "";
  return `Answer: ${answer.text.trim()} ${drawn} ${checked}`.replace(/\s+/g, " ").trim();
}

// --- the beginning --------------------------------------------------------------------------

/** Ask the server for its model; return whether it told. */
async function meet() {
  try {
    model = await api.model();
  } catch (error) {
    if (error.wantsKey) {
      byId("change-key").hidden = false;
      return await askForKey(api) ? meet() : false;
    }
    const said = error instanceof Refusal ? error.message : "This page failed. Load it again.";
    toast(said, "Try again", meet);
    byId("invitation").textContent = said;
    return false;
  }
  byId("change-key").hidden = !api.key;
  settings.offer(model);
  boxes.offer(model);
  composer.most = model.max_images;
  const draws = model.sizes.length > 0;
  const sizes = model.sizes.map((size) => size.replace("x", " × ")).join(", ");
  const head = model.image_head.replaceAll("_", " ");
  const said = draws ? [model.id, sizes, head] : [model.id, "words only"];
  byId("model").textContent = said.join(" · ");
  byId("greeting").textContent = draws ? "What shall we draw?" : "What shall we look at?";
  byId("invitation").textContent = draws
    ? "Say what to draw, then change it. Or show an image, and ask about it."
    : "Show an image, and ask about it. This model answers in words.";
  byId("examples").replaceChildren(...(draws ? EXAMPLES : []).map((text) => element("li", {},
    element("button", { type: "button", text, click: () => ask({ text }) }))));
  return true;
}

function showTheme() {
  const theme = document.documentElement.dataset.theme ?? "system";
  byId("theme").querySelector("span").textContent = `Theme: ${theme}`;
}

function changeTheme() {
  const next = THEMES[document.documentElement.dataset.theme ?? "system"];
  if (next === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  try {
    localStorage.setItem("unimodal-theme", next);
  } catch {
    // Then it lasts until the page is closed.
  }
  showTheme();
}

async function begin() {
  byId("theme").addEventListener("click", changeTheme);
  byId("change-key").addEventListener("click", async () => await askForKey(api) && meet());
  byId("undo").addEventListener("click", () => {
    stop();
    change(() => current.undo());
    announce("The last turn is undone.");
  });
  byId("redo").addEventListener("click", () => {
    change(() => current.redo());
    announce("The turn is there again.");
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && works.has(current.id) && !event.defaultPrevented) stop();
  });
  showTheme();
  await history.open();
  conversations = await history.all();
  let last = null;
  try {
    last = sessionStorage.getItem(OPEN);
  } catch {
    // Then the page begins with a new conversation.
  }
  open(conversations.find((one) => one.id === last) ?? current);
  await meet();
  document.body.dataset.ready = "true";
}

begin();
