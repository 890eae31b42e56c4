// Builds ../static from src. The hash of all sources goes beside it, so that a test can tell whether it is up to date.
import { build } from "esbuild";
import { createHash } from "node:crypto";
import { readFileSync, readdirSync, writeFileSync, mkdirSync, copyFileSync } from "node:fs";

const here = new URL(".", import.meta.url).pathname;
const out = `${here}../static/`;
const parts = ["markdown-it", "linkify-it", "mdurl", "uc.micro", "entities", "punycode.js"];

mkdirSync(out, { recursive: true });
await build({
  entryPoints: [`${here}src/app.js`, `${here}src/app.css`],
  outdir: out,
  bundle: true,
  minify: true,
  legalComments: "none",
  charset: "utf8",
  target: ["es2022"],
  logLevel: "warning",
});
for (const name of ["index.html", "icon.svg"]) copyFileSync(`${here}src/${name}`, `${out}${name}`);
writeFileSync(`${out}LICENSES.txt`, parts.map(licence).join("\n"));
writeFileSync(`${out}sources.sha256`, `${digest()}\n`);

function licence(name) {
  const folder = `${here}node_modules/${name}/`;
  const about = JSON.parse(readFileSync(`${folder}package.json`, "utf8"));
  const file = readdirSync(folder).find((each) => /^licen[cs]e/i.test(each));
  return `== ${name} ${about.version} (${about.license}) ==\n\n${file ? readFileSync(folder + file, "utf8").trim() : ""}\n`;
}

function digest() {
  const hash = createHash("sha256");
  const names = ["build.mjs", "package.json", "package-lock.json", ...readdirSync(`${here}src`).map((name) => `src/${name}`)];
  for (const name of names.sort()) hash.update(name).update("\0").update(readFileSync(here + name)).update("\0");
  return hash.digest("hex");
}
