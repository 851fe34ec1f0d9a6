// Builds daemon/assets/page/index.html: one file, so that it also works when it is opened from a disk.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Plugin } from "vite";
import { defineConfig } from "vite";

const contract = fileURLToPath(new URL("../../docs/asyncapi.json", import.meta.url));

/** `virtual:contract`: the schemas of requests and what they refer to, out of the committed description of the contract. */
function requestSchemas(): Plugin {
    const name = "virtual:contract";
    return {
        name: "request-schemas",
        resolveId: (id) => (id === name ? `\0${name}` : undefined),
        load(id) {
            if (id !== `\0${name}`) return undefined;
            this.addWatchFile(contract);
            const all = JSON.parse(readFileSync(contract, "utf8")).components.schemas;
            const used: Record<string, unknown> = {};
            const take = (key: string) => {
                if (key in used) return;
                used[key] = all[key];
                for (const [, next] of JSON.stringify(all[key]).matchAll(/#\/components\/schemas\/(\w+)/g)) take(next!);
            };
            take("Img2ImgRequest");
            return `export default ${JSON.stringify(used)}`;
        },
    };
}

/** Puts the script and the styles into the page. */
function oneFile(): Plugin {
    return {
        name: "one-file",
        enforce: "post",
        generateBundle(_, bundle) {
            const page = bundle["index.html"];
            if (page?.type !== "asset") throw new Error("no index.html");
            let html = String(page.source);
            for (const [name, file] of Object.entries(bundle)) {
                if (file === page) continue;
                const text = file.type === "chunk" ? file.code : String(file.source);
                const tag = file.type === "chunk" ? "script" : "style";
                const where = new RegExp(`<(?:script|link)[^>]*${name.replaceAll(".", "\\.")}[^>]*>(?:</script>)?`);
                if (!where.test(html)) throw new Error(`${name} is not in index.html`);
                html = html.replace(where, "");
                const open = tag === "script" ? '<script type="module">' : "<style>";
                const safe = text.trim().replaceAll(`</${tag}`, `<\\/${tag}`);
                // What is painted first comes before the script.
                const end = tag === "script" ? "</body>" : "</head>";
                html = html.replace(end, () => `${open}${safe}</${tag}>${end}`);
                delete bundle[name];
            }
            page.source = html.replace(/\n\s*/g, "\n");
        },
    };
}

export default defineConfig({
    base: "./",
    plugins: [requestSchemas(), oneFile()],
    build: {
        outDir: "../assets/page",
        emptyOutDir: true,
        target: "es2022",
        modulePreload: { polyfill: false },
        assetsInlineLimit: 0,
        reportCompressedSize: false,
    },
});
