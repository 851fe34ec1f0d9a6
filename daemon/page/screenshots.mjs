// The screenshots of README and docs/page.md: the page with a job, a queue and pictures, on a desk, and on a phone in
// German and in the dark. With the program built and `npm ci` done here:
//
//     node daemon/page/screenshots.mjs docs/images
//
// In 128 colours they weigh a fifth, by Pillow's
// `Image.open(file).convert("RGB").quantize(128).save(file, optimize=True)`.

import { join } from "node:path";
import { Broker, Device, PHONE, closeBrowser, open, until } from "./tests/rig.mjs";

const folder = process.argv[2] ?? ".";
const PAINTED = [
    "a yellow house on a meadow with a rainbow",
    "a blue boat on the sea at sunset",
    "a red house at sunset",
    "a green tree in the snow",
];

async function paint(tab, prompt, steps) {
    const details = tab.locator("form.paint details");
    if ((await details.getAttribute("open")) === null) await details.locator("summary").click();
    await tab.locator("#steps").fill(String(steps));
    await details.locator("summary").click();
    await tab.locator("#prompt").fill(prompt);
    await tab.locator("form.paint button[type=submit]").click();
}

/** Waits until a job is painted that has a preview, and so far that something is seen. */
async function painting(tab) {
    const progress = () => tab.locator("[role=progressbar]").getAttribute("aria-valuenow");
    await tab.locator("img.preview").waitFor();
    await until("it is painted", async () => Number(await progress()) >= 25);
}

const broker = await Broker.start();
const device = await Device.start(broker, "frame");
try {
    const desk = await open(broker.address);
    await desk.getByText("frame · online").waitFor();
    const options = { viewport: PHONE, locale: "de-DE", colorScheme: "dark" };
    const phone = await open(broker.address, options);
    await phone.getByText("frame · online").waitFor();
    for (const prompt of PAINTED) await paint(desk, prompt, 20);
    await until("they are painted", async () => (await desk.locator("button.picture").count()) === PAINTED.length);
    await paint(desk, "a red kite", 10);
    await until("it is painted", async () => (await desk.locator("button.picture").count()) > PAINTED.length);
    await paint(desk, "a large white house at night with a moon", 400);
    for (const prompt of ["a black cat in the snow", "a red boat on the sea"]) await paint(desk, prompt, 20);
    await painting(desk);
    await desk.screenshot({ path: join(folder, "page-desk.png") });
    await phone.getByText("Jetzt", { exact: true }).evaluate((title) => {
        const header = document.querySelector("header").getBoundingClientRect().height;
        window.scrollTo(0, title.getBoundingClientRect().top + window.scrollY - header - 30);
    });
    await phone.screenshot({ path: join(folder, "page-phone.png") });
} finally {
    await closeBrowser();
    await device.stop();
    await broker.stop();
}
