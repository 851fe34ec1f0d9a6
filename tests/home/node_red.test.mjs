// docs/node-red/flow.json in a real Node-RED, with a real broker and a real device: a prompt in, progress, a picture out.
// NODE_RED names the folder in which the package was installed.

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Broker, Device, Program, freePort, until } from "../../daemon/page/tests/rig.mjs";

const FLOW = new URL("../../docs/node-red/flow.json", import.meta.url);

test("the flow paints: prompt in, progress, picture out, and says why not", async () => {
    const broker = await Broker.start();
    const device = await Device.start(broker, "frame");
    const folder = mkdtempSync(join(tmpdir(), "diffused-node-red-"));
    const port = await freePort();
    const flow = JSON.parse(readFileSync(FLOW, "utf8"));
    // The only thing that differs from what people import: the broker's port, and where files go.
    flow.find((node) => node.type === "mqtt-broker").port = String(broker.port);
    const picture = flow.find((node) => node.id === "diffused.picture");
    picture.func = picture.func.replace("`/tmp/", `\`${folder}/`);
    writeFileSync(join(folder, "flow.json"), JSON.stringify(flow));
    const settings = {
        uiHost: "127.0.0.1",
        uiPort: port,
        flowFile: "flow.json",
        credentialSecret: false,
        telemetry: { enabled: false, updateNotification: false },
    };
    writeFileSync(join(folder, "settings.js"), `module.exports = ${JSON.stringify(settings)};`);
    const script = join(process.env.NODE_RED, "node_modules/node-red/red.js");
    const nodeRed = new Program(process.execPath, [script, "--userDir", folder]);
    const address = `http://127.0.0.1:${port}/diffused`;
    const far = async () => (await fetch(`${address}/progress`)).json();
    try {
        await until("Node-RED serves the flow", () =>
            fetch(`${address}/progress`).then(
                (answer) => answer.ok,
                () => false,
            ),
        );
        assert.equal((await fetch(`${address}/latest`)).status, 404);
        await until("the flow is connected", () => nodeRed.output.includes("Connected to broker"));
        const ask = (body, type) =>
            fetch(`${address}/paint`, { method: "POST", body, headers: { "Content-Type": type } });
        // Large enough to take several seconds anywhere: progress is published once a second.
        const size = { width: 512, height: 512, steps: 100 };
        const request = { id: "house", prompt: "a large red house at night with a moon", ...size };
        assert.equal((await ask(JSON.stringify(request), "application/json")).status, 202);
        const seen = new Set();
        await until("it is done", async () => {
            const { state, progress } = await far();
            seen.add(progress);
            return state === "done";
        });
        assert.ok(seen.size > 2, `progress: ${[...seen]}`);
        const answer = await fetch(`${address}/latest`);
        const bytes = Buffer.from(await answer.arrayBuffer());
        assert.equal(answer.headers.get("content-type"), "image/png");
        assert.equal(bytes.subarray(1, 4).toString(), "PNG");
        assert.deepEqual(readFileSync(join(folder, "house-0.png")), bytes);
        await ask("a black cat", "text/plain");
        await until("plain text is a prompt", async () => {
            const { id, state } = await far();
            return id.startsWith("node-red-") && state === "done";
        });
        await ask(JSON.stringify({ prompt: "a", width: 1 }), "application/json");
        await until("a refusal is told", () => nodeRed.output.includes("multiples of 8"));
    } catch (error) {
        console.log(nodeRed.output);
        throw error;
    } finally {
        await nodeRed.stop();
        await device.stop();
        await broker.stop();
        rmSync(folder, { recursive: true });
    }
});
