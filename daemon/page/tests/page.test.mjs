// The page as people use it: in Chromium, with a real broker and real devices.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import { Broker, DESK, Device, PHONE, closeBrowser, open, sleep, until } from "./rig.mjs";

/** axe-core, whose script the page's own policy would not load. */
const source = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
/** Where screenshots go, if anywhere. */
const shots = process.env.DIFFUSED_SCREENSHOTS;
const WORDS = "a large red house at night with a moon";

let broker;
let frame;
before(async () => {
    broker = await Broker.start();
    frame = await Device.start(broker, "frame");
});
after(async () => {
    await closeBrowser();
    await frame?.stop();
    await broker?.stop();
});

/** The page with the device seen. */
async function ready(options) {
    const tab = await open(broker.address, options);
    await tab.getByText("frame · online").waitFor();
    return tab;
}

async function close(tab) {
    assert.deepEqual(tab.faults, []);
    await tab.context().close();
}

async function settings(tab, values) {
    const details = tab.locator("form.paint details");
    if ((await details.getAttribute("open")) === null) await details.locator("summary").click();
    for (const [path, value] of Object.entries(values)) {
        const field = tab.locator(`[id="${path}"]`);
        if ((await field.evaluate((element) => element.tagName)) === "SELECT") await field.selectOption(value);
        else await field.fill(value);
    }
}

async function paint(tab, prompt, values = {}) {
    await settings(tab, values);
    await tab.locator("#prompt").fill(prompt);
    await tab.locator("form.paint button[type=submit]").click();
}

const pictures = (tab) => tab.locator("button.picture");

async function findsNothing(tab, where) {
    await tab.evaluate(source);
    const { violations, passes } = await tab.evaluate(() =>
        globalThis.axe.run(document, { resultTypes: ["violations"] }),
    );
    const told = violations.map(
        ({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.html}\n  ${node.failureSummary}`).join("\n")}`,
    );
    assert.deepEqual(told, [], where);
    assert.ok(passes.length > 10, "axe has looked");
}

async function shoot(tab, name, options = {}) {
    if (!shots) return;
    mkdirSync(shots, { recursive: true });
    await tab.screenshot({ path: `${shots}/${name}.png`, ...options });
}

test("a prompt becomes a picture, with progress, previews and parameters", async () => {
    const tab = await ready();
    // Enough to take several seconds anywhere: progress is published once a second.
    await paint(tab, WORDS, { steps: "1000", seed: "7" });
    const bar = tab.getByRole("progressbar");
    await bar.waitFor();
    const [seen, previews] = [new Set(), new Set()];
    await until("progress is seen and the picture comes", async () => {
        const now = await tab.evaluate(() => [
            document.querySelector("[role=progressbar]")?.getAttribute("aria-valuenow"),
            document.querySelector("img.preview")?.naturalWidth,
        ]);
        seen.add(now[0]);
        previews.add(now[1]);
        return (await pictures(tab).count()) === 1;
    });
    assert.ok(seen.size >= 3, `progress: ${[...seen]}`);
    assert.ok(
        [...previews].some((width) => width >= 128),
        `previews: ${[...previews]}`,
    );
    await tab.getByText("Nothing is being painted.").waitFor();
    await pictures(tab).click();
    const dialog = tab.getByRole("dialog");
    await dialog.getByText("ddim").waitFor();
    const about = await dialog.textContent();
    for (const part of ["a large red house at night with a moon", "Steps1000", "Seed7", "Deviceframe"])
        assert.ok(about.includes(part), about);
    const picture = await dialog.locator("img").evaluate((image) => [image.naturalWidth, image.naturalHeight]);
    assert.deepEqual(picture, [128, 128]);
    const waits = tab.waitForEvent("download");
    await dialog.getByText("Download").click();
    assert.equal((await waits).suggestedFilename(), "a-large-red-house-at-night-with-a-moon-7.png");
    await close(tab);
});

test("again, vary, start from a picture, and repaint a part of it", async () => {
    const tab = await ready({ touch: true });
    await paint(tab, WORDS, { steps: "10", seed: "3" });
    await until("a picture", async () => (await pictures(tab).count()) === 1);
    const act = async (name) => {
        await pictures(tab).last().click();
        await tab.getByRole("dialog").getByText(name, { exact: true }).click();
    };
    await act("Again");
    await until("another one", async () => (await pictures(tab).count()) === 2);
    await act("Vary");
    await until("a variation", async () => (await pictures(tab).count()) === 3);
    await pictures(tab).first().click();
    await tab.getByRole("dialog").getByText("0.5", { exact: true }).waitFor();
    await tab.keyboard.press("Escape");
    await act("Repaint a part");
    const canvas = tab.getByRole("dialog").locator("canvas");
    const box = await canvas.boundingBox();
    await tab.mouse.move(box.x + box.width * 0.3, box.y + box.height * 0.3);
    await tab.mouse.down();
    await tab.mouse.move(box.x + box.width * 0.6, box.y + box.height * 0.6, { steps: 8 });
    await tab.mouse.up();
    await canvas.press("ArrowDown");
    await canvas.press(" ");
    await shoot(tab, "mask");
    await tab.getByText("Use this mask").click();
    await tab.getByText("Change the mask").waitFor();
    await settings(tab, { inpainting_fill: "fill", mask_blur: "1" });
    await tab.locator("form.paint button[type=submit]").click();
    await until("a repainted picture", async () => (await pictures(tab).count()) === 4);
    await pictures(tab).first().click();
    const about = await until("its parameters", async () => {
        const text = await tab.getByRole("dialog").textContent();
        return text.includes("inpainting_fill fill") && text;
    });
    assert.ok(about.includes("mask_blur_x 1"), about);
    await close(tab);
});

test("jobs are moved and cancelled, and the queue is paused and goes on", async () => {
    const tab = await ready();
    await paint(tab, "a blue boat on the sea", { steps: "900" });
    await tab.getByRole("progressbar").waitFor();
    await paint(tab, "a red kite", { steps: "5" });
    await paint(tab, "a black cat");
    const queue = tab.locator("section.queue");
    await until("two wait", async () => (await queue.locator("ol li").count()) === 2);
    await shoot(tab, "desk-busy", { fullPage: true });
    assert.equal(await queue.getByLabel("Move “a red kite” up").count(), 0, "the first is the next already");
    await queue.getByLabel("Move “a black cat” up").click();
    await until("it is the first", async () => (await queue.locator("ol li").first().textContent()).includes("cat"));
    await queue.getByLabel("Cancel “a red kite”").click();
    await until("one waits", async () => (await queue.locator("ol li").count()) === 1);
    await queue.getByRole("button", { name: "Pause" }).click();
    await tab.getByText("Paused: no further job is started.").waitFor();
    await tab.locator("section.now").getByRole("button", { name: "Cancel" }).click();
    await tab.getByText("Nothing is being painted.").waitFor();
    await sleep(500);
    assert.equal(await queue.locator("ol li").count(), 1, "what waits is not started");
    await queue.getByRole("button", { name: "Go on" }).click();
    await until("the last one is painted", async () => (await pictures(tab).count()) === 1);
    const ended = await queue.locator("ul").textContent();
    assert.equal(ended.match(/cancelled/g)?.length, 2, ended);
    await close(tab);
});

test("bad input marks its field, by the page and by the device", async () => {
    const tab = await ready();
    const wrong = (path) => tab.locator(`[id="${path}"][aria-invalid=true]`);
    await tab.locator("form.paint button[type=submit]").click();
    await wrong("prompt").waitFor();
    await paint(tab, "a", { width: "100", steps: "5000", seed: "x", id: "no blanks" });
    for (const [path, words] of [
        ["width", "A multiple of 8: 96 or 104."],
        ["steps", "At most 1000."],
        ["seed", "This is not a number."],
        ["id", "Letters, digits"],
    ]) {
        await wrong(path).waitFor();
        const problem = await tab.locator(`[id="${path}-problem"]`).textContent();
        assert.ok(problem.startsWith(words), `${path}: ${problem}`);
    }
    assert.equal(
        await tab.evaluate(() => document.activeElement.id),
        "seed",
        "the first field that is wrong has the focus",
    );
    await shoot(tab, "wrong");
    await paint(tab, "a", { width: "", steps: "", seed: "", id: "", "output.palette": "pink" });
    await tab.locator('[id="output-problem"]', { hasText: "pink" }).waitFor();
    assert.equal(await tab.locator("form.paint .problem").count(), 1);
    await close(tab);
});

test("every key of a request is in the form, and what is typed arrives", async () => {
    const tab = await ready();
    await paint(tab, "a blue boat on the sea", {
        negative_prompt: "rain",
        width: "96",
        height: "64",
        steps: "6",
        cfg_scale: "3.5",
        seed: "18446744073709551615",
        sampler_name: "euler",
        scheduler: "karras",
        "hires.scale": "1.5",
        "hires.steps": "3",
        "hires.upscaler": "Lanczos",
        format: "jpg",
        priority: "5",
        id: "boat-1",
        "output.panel": "inky-impression-7.3",
        "output.dither": "atkinson",
    });
    await until("the picture", async () => (await pictures(tab).count()) === 1);
    await pictures(tab).click();
    const dialog = tab.getByRole("dialog");
    const text = await until("its parameters", async () => {
        const all = await dialog.textContent();
        return all.includes("18446744073709551615") && all;
    });
    for (const part of [
        "Avoidrain",
        "Width96",
        "Height64",
        "Guidance3.5",
        "Samplereuler",
        "Noise schedulekarras",
        "upscaler Lanczos",
        "width 144",
    ]) {
        assert.ok(text.includes(part), `${part} in ${text}`);
    }
    assert.equal(
        await dialog.getByText("Download").getAttribute("download"),
        "a-blue-boat-on-the-sea-18446744073709551615.jpg",
    );
    await dialog.getByText("Edit", { exact: true }).click();
    assert.equal(await tab.locator("#seed").inputValue(), "18446744073709551615");
    assert.equal(await tab.locator('[id="hires.scale"]').inputValue(), "1.5");
    await close(tab);
});

test("the broker goes and comes back", async () => {
    const tab = await ready();
    await broker.down();
    await tab.getByRole("alert").waitFor();
    await shoot(tab, "lost");
    await paint(tab, "a red kite", { steps: "5" });
    await tab.getByText("sent as soon as the connection is back").waitFor();
    await tab.getByRole("button", { name: "Try now" }).click();
    await broker.up();
    await tab.getByText("Connected", { exact: true }).waitFor();
    await until("what was asked for meanwhile is painted", async () => (await pictures(tab).count()) === 1, 60_000);
    assert.equal(await tab.getByRole("alert").count(), 0);
    await close(tab);
});

test("two devices on one broker", async () => {
    const shared = await Broker.start();
    const devices = [await Device.start(shared, "frame"), await Device.start(shared, "kitchen")];
    try {
        const tab = await open(shared.address);
        const choice = tab.locator("header select.devices");
        await choice.getByText("kitchen · online").waitFor({ state: "attached" });
        await choice.selectOption("kitchen");
        await tab.getByRole("heading", { name: "Board kitchen" }).waitFor();
        await paint(tab, "a black cat", { steps: "5" });
        await until("a picture", async () => (await pictures(tab).count()) === 1);
        await choice.selectOption("frame");
        await paint(tab, "a red kite", { steps: "5" });
        await until("a picture of the other", async () => (await pictures(tab).count()) === 2);
        const painters = [];
        for (const i of [0, 1]) {
            await pictures(tab).nth(i).click();
            painters.push(
                await tab.getByRole("dialog").locator("dl div", { hasText: "Device" }).locator("dd").textContent(),
            );
            await tab.keyboard.press("Escape");
        }
        assert.deepEqual(painters, ["frame", "kitchen"]);
        await devices[1].program.stop();
        await choice.getByText("kitchen · offline").waitFor({ state: "attached" });
        await close(tab);
    } finally {
        for (const device of devices) await device.stop();
        await shared.stop();
    }
});

test("clear words where there is no broker, no WebSockets, no login", async () => {
    const strict = await Broker.start(["allow_anonymous false"]);
    const web = createServer((_, response) => response.end("no broker"));
    await new Promise((resolve) => web.listen(0, "127.0.0.1", resolve));
    try {
        const tab = await open(strict.address);
        const says = (words) => tab.getByRole("alert").filter({ hasText: words }).waitFor();
        await says("The broker refuses the login.");
        await shoot(tab, "refused");
        const ask = async (url) => {
            await tab.locator("header button").click();
            const dialog = tab.getByRole("dialog");
            await dialog.getByLabel("Broker's address").fill(url);
            await dialog.getByText("Connect", { exact: true }).click();
        };
        await ask(`ws://127.0.0.1:${strict.port}`);
        await says("or it has no WebSockets");
        await ask("ws://127.0.0.1:1");
        await says("Nothing answers at ws://127.0.0.1:1.");
        await ask(`ws://127.0.0.1:${web.address().port}`);
        await says("Nothing answers");
        await ask("http://127.0.0.1:1/no#broker");
        await says("is not an address");
        await ask(`ws://127.0.0.1:${broker.webPort}/mqtt`);
        await tab.getByText("frame · online").waitFor();
        await close(tab);
    } finally {
        web.close();
        await strict.stop();
    }
});

test("it works where it is opened from a disk", async () => {
    const { page } = await import("./rig.mjs");
    const tab = await open(`file://${page}/index.html?broker=ws://127.0.0.1:${broker.webPort}`);
    await tab.getByText("frame · online").waitFor();
    await close(tab);
});

test("axe finds nothing, light and dark, on a desk and on a phone, in English and in German", async () => {
    for (const [locale, colorScheme, viewport] of [
        ["en-GB", "light", DESK],
        ["de-DE", "dark", PHONE],
    ]) {
        const tab = await ready({ locale, colorScheme, viewport, touch: viewport === PHONE });
        assert.equal(await tab.evaluate(() => document.documentElement.lang), locale.slice(0, 2));
        await tab.locator("form.paint summary").click();
        await tab.locator("#prompt").fill("a black cat");
        await tab.locator("#steps").fill("0");
        await tab.locator("form.paint button[type=submit]").click();
        await tab.locator("#steps-problem").waitFor();
        await findsNothing(tab, "with a problem");
        await tab.locator("#steps").fill("5");
        await tab.locator("form.paint button[type=submit]").click();
        await until("a picture", async () => (await pictures(tab).count()) === 1);
        await findsNothing(tab, "with a picture");
        await shoot(tab, `${viewport === PHONE ? "phone" : "desk"}-${colorScheme}`, { fullPage: true });
        await pictures(tab).click();
        await tab.getByRole("dialog").locator("dl").waitFor();
        await findsNothing(tab, "the picture");
        await shoot(tab, `picture-${colorScheme}`);
        await tab.getByRole("dialog").locator(".about button").nth(3).click();
        await tab.locator("canvas").waitFor();
        await findsNothing(tab, "the mask");
        await tab.keyboard.press("Escape");
        await tab.locator("header button").click();
        await tab.getByRole("dialog").locator("form").waitFor();
        await findsNothing(tab, "the settings");
        await shoot(tab, `settings-${colorScheme}`);
        await close(tab);
    }
});

test("the first paint comes within a second on a slow machine", async () => {
    const tab = await open("about:blank", { viewport: PHONE });
    const session = await tab.context().newCDPSession(tab);
    // Lighthouse's slow phone: a processor of a quarter of the speed, 1.6 Mbit/s, 150 ms to and fro.
    await session.send("Emulation.setCPUThrottlingRate", { rate: 4 });
    await session.send("Network.enable");
    await session.send("Network.emulateNetworkConditions", {
        offline: false,
        latency: 150,
        downloadThroughput: 1.6e6 / 8,
        uploadThroughput: 750e3 / 8,
    });
    await tab.goto(broker.address);
    const paints = await until("the first paint", () =>
        tab.evaluate(() => {
            const [paint] = performance.getEntriesByName("first-contentful-paint");
            return paint && paint.startTime;
        }),
    );
    console.log(`first contentful paint at 4× slower and 1.6 Mbit/s: ${Math.round(paints)} ms`);
    assert.ok(paints < 1000, `${paints} ms`);
    await close(tab);
});
