// Images as data: URLs: those that are given, and what is told of two of them.

import { element } from "./dom.js";

const MOST_BYTES = 4_000_000; // of an image that is sent as it is; every turn sends it again
const MOST_PIXELS = 16_000_000; // the server's bound
const SIDE = 1024; // of one that is made smaller
const KINDS = ["image/png", "image/jpeg", "image/webp", "image/gif"]; // that the server opens
const UNDRAWN = 128; // red, green and blue of what is not drawn yet, as the server sends it
const LOOKED_AT = 32; // pixels of a side when two images are compared
const NEAR = 40; // levels of 255 by which equal places may differ: the tokenizer's own errors
const KEPT = 0.6; // the share of an image that an edit leaves as it was, at least

function urlOf(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

/** Return a canvas as a PNG, a data: URL. An OffscreenCanvas would give it an alpha channel,
 * always. */
async function pngOf(canvas) {
  return urlOf(await new Promise((resolve) => { canvas.toBlob(resolve, "image/png"); }));
}

/** Return an image file as a data: URL: its own bytes or, where the server would not take them, a
 * PNG of at most SIDE pixels a side. Throws an Error, a sentence, for what is no image. */
export async function given(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`${file.name || "The file"} is no image that this browser can open.`
      + " Give a PNG, JPEG, WebP or GIF.");
  }
  const { width, height } = bitmap;
  const fits = file.size <= MOST_BYTES && width * height <= MOST_PIXELS;
  if (fits && KINDS.includes(file.type)) return urlOf(file);
  const scale = Math.min(1, SIDE / Math.max(width, height));
  const size = [width, height].map((side) => Math.max(1, Math.round(side * scale)));
  const context = drawn(bitmap, size);
  const { data } = context.getImageData(0, 0, ...size);
  const isOpaque = data.every((value, at) => at % 4 !== 3 || value === 255);
  // Without an alpha channel that nothing shines through: the server notes what it does to one.
  const { canvas } = isOpaque ? drawn(bitmap, size, { alpha: false }) : context;
  return pngOf(canvas);
}

/** Return the context of a canvas of a size, with an image all over it. */
function drawn(bitmap, [width, height], settings = {}) {
  const context = element("canvas", { width, height }).getContext("2d", settings);
  context.drawImage(bitmap, 0, 0, width, height);
  return context;
}

/** Return the bytes of a data: URL as a file of their own. */
export function blobOf(url) {
  const [head, content] = url.split(";base64,");
  const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
  return new Blob([bytes], { type: head.slice("data:".length) });
}

/** Return LOOKED_AT x LOOKED_AT pixels of an image, RGBA. */
async function smaller(url) {
  const bitmap = await createImageBitmap(blobOf(url));
  const size = [LOOKED_AT, LOOKED_AT];
  return drawn(bitmap, size).getImageData(0, 0, ...size).data;
}

/** Return whether an image looks like another that was edited: most of it is as it was. */
export async function isEdit(before, after) {
  const [old, fresh] = await Promise.all([smaller(before), smaller(after)]);
  let near = 0;
  for (let at = 0; at < old.length; at += 4) {
    const differs = [at, at + 1, at + 2].some((one) => Math.abs(old[one] - fresh[one]) > NEAR);
    near += differs ? 0 : 1;
  }
  return near >= KEPT * (old.length / 4);
}

/** Return a drawing in the making without the grey of what is not drawn yet. */
export async function unveiled(url) {
  const bitmap = await createImageBitmap(blobOf(url));
  const size = [bitmap.width, bitmap.height];
  const context = drawn(bitmap, size);
  const pixels = context.getImageData(0, 0, ...size);
  const { data } = pixels;
  for (let at = 0; at < data.length; at += 4) {
    if ([at, at + 1, at + 2].every((one) => data[one] === UNDRAWN)) data[at + 3] = 0;
  }
  context.putImageData(pixels, 0, 0);
  return pngOf(context.canvas);
}

/** Save an image as a file, byte for byte: a PNG of the server says what it comes from. */
export function download(url, words, seed) {
  const plain = words.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 40);
  const named = [plain.replace(/^-|-$/g, "") || "image"];
  if (seed !== undefined) named.push(`seed-${seed}`);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blobOf(url));
  const kind = url.slice("data:image/".length, url.indexOf(";")).replace("jpeg", "jpg");
  link.download = `${named.join("-")}.${kind}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
