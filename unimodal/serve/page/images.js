// Images as data: URLs: those that are given, and what is told of two of them.

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
  const canvas = new OffscreenCanvas(
    Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale)));
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return urlOf(await canvas.convertToBlob({ type: "image/png" }));
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
  const canvas = new OffscreenCanvas(LOOKED_AT, LOOKED_AT);
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0, LOOKED_AT, LOOKED_AT);
  return context.getImageData(0, 0, LOOKED_AT, LOOKED_AT).data;
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
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const pixels = context.getImageData(0, 0, bitmap.width, bitmap.height);
  const { data } = pixels;
  for (let at = 0; at < data.length; at += 4) {
    if ([at, at + 1, at + 2].every((one) => data[one] === UNDRAWN)) data[at + 3] = 0;
  }
  context.putImageData(pixels, 0, 0);
  return urlOf(await canvas.convertToBlob({ type: "image/png" }));
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
