// The other files of this folder. Errors are sentences for the page.

// Return a file's bytes.
export async function loaded(file) {
  const response = await reached(file, fetch(new URL(file, import.meta.url)));
  if (!response.ok) throw new Error(`${file}: the host answered ${response.status}. Is the folder complete?`);
  return new Uint8Array(await reached(file, response.arrayBuffer()));
}

// Return what a file of JSON holds.
export async function json(file) {
  return JSON.parse(new TextDecoder().decode(await loaded(file)));
}

// Return a promise that fails in words of the page: the browser's own name no file.
function reached(file, promise) {
  return promise.catch(() => {
    throw new Error(`The file ${file} could not be loaded. Check the connection, then choose a picture.`);
  });
}
