// How large the built page is, and whether it holds what it may not. `npm run build` ends with it.

import { readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

const MOST = 120 * 1024;
const page = readFileSync(new URL("../assets/page/index.html", import.meta.url));
const packed = gzipSync(page, { level: 9 }).length;
console.log(`the page: ${page.length} bytes, ${(packed / 1024).toFixed(1)} KiB gzipped of ${MOST / 1024} allowed`);
if (packed > MOST) throw new Error("the page is too large");
// Names of XML (SVG's) are no addresses that anybody fetches.
const addresses = [...page.toString().matchAll(/https?:\/\/[^\s"'`)]*/g)].map(([address]) => address);
const foreign = addresses.filter((address) => !address.startsWith("http://www.w3.org/"));
if (foreign.length > 0) throw new Error(`the page names addresses: ${foreign.join(" ")}`);
