"""A real Home Assistant, a real broker and a real device: what discovery announces is there, shows what the device says and
does what it is named for; the blueprint paints; the card names entities that there are; all is gone when it is switched off.

    home_assistant.py PORT CONFIG DOCS

PORT: the broker's. CONFIG: the device's configuration, device `frame`, with discovery. DOCS: docs/home-assistant. Runs in
tests/home/home_assistant, which installs what it needs.
"""

import asyncio
import json
import logging
import socket
import sys
import tempfile
from pathlib import Path
from types import MappingProxyType

import paho.mqtt.client as mqtt
from homeassistant import auth, bootstrap, config_entries, core, loader
from homeassistant.helpers import device_registry, entity_registry
from homeassistant.setup import async_setup_component
from homeassistant.util import yaml
from homeassistant.util.unit_system import METRIC_SYSTEM

PORT, CONFIG, DOCS = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
DISCOVERY = "homeassistant/device/diffused_frame/config"
BLUEPRINT = "diffused/morning-picture.yaml"
#: Whatever Home Assistant has to complain of.
complaints = []


class Listener(logging.Handler):
    def emit(self, record):
        text = f"{record.name}: {record.getMessage()}"
        # Of Home Assistant's own integration, of the test's Python, and of a message that Home Assistant itself repeats.
        own = ("homeassistant.helpers.frame", "aiohttp_fast_zlib", "No device components to cleanup")
        if not any(words in text for words in own):
            complaints.append(text)


class Client:
    """A client of the broker that keeps what it heard."""

    def __init__(self):
        self.heard = []
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self.client.on_message = lambda client, data, message: self.heard.append(message)
        self.client.connect("127.0.0.1", PORT)
        self.client.subscribe([("diffused/#", 1), ("homeassistant/#", 1)])
        self.client.loop_start()

    def on(self, topic):
        """The payloads on `topic`, oldest first."""
        return [message.payload for message in list(self.heard) if mqtt.topic_matches_sub(topic, message.topic)]

    def results(self):
        return [json.loads(payload) for payload in self.on("diffused/frame/job/+/result")]


async def until(what, probe, seconds=120):
    for _ in range(seconds * 10):
        found = probe()
        if found:
            return found
        await asyncio.sleep(0.1)
    raise SystemExit(f"in {seconds} s not: {what}\n" + "\n".join(complaints))


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


async def start(folder):
    """Home Assistant with MQTT and automations, without its frontend."""
    (folder / "configuration.yaml").touch()
    assistant = core.HomeAssistant(str(folder))
    loader.async_setup(assistant)
    assistant.config.skip_pip = True
    assistant.config.units = METRIC_SYSTEM
    assistant.config_entries = config_entries.ConfigEntries(assistant, {})
    await loader.async_get_custom_components(assistant)
    await bootstrap.async_load_base_functionality(assistant)
    assistant.auth = await auth.auth_manager_from_config(assistant, [{"type": "homeassistant"}], [])
    for domain, options in [("homeassistant", {}), ("http", {"server_host": "127.0.0.1", "server_port": free_port()})]:
        assert await async_setup_component(assistant, domain, {domain: options}), domain
    entry = config_entries.ConfigEntry(
        domain="mqtt", title="MQTT", version=2, minor_version=1, source="user", unique_id=None, options={},
        data={"broker": "127.0.0.1", "port": PORT}, discovery_keys=MappingProxyType({}), subentries_data=[],
    )
    await assistant.config_entries.async_add(entry)
    await assistant.async_start()
    return assistant


class Home:
    def __init__(self, assistant):
        self.assistant = assistant

    def state(self, entity):
        state = self.assistant.states.get(entity)
        return None if state is None else state.state

    async def shows(self, entity, wanted):
        probe = wanted if callable(wanted) else lambda state: state == wanted
        await until(f"{entity} shows it; it is {self.state(entity)}", lambda: probe(self.state(entity)))
        print(f"  {entity}: {self.state(entity)}")

    async def call(self, service, entity, **data):
        domain, name = service.split(".")
        await self.assistant.services.async_call(domain, name, {"entity_id": entity, **data}, blocking=True)


def is_number(state):
    try:
        return float(state) >= 0
    except (TypeError, ValueError):
        return False


async def values(home):
    print("what is shown")
    for entity in ["memory", "disk_free", "temperature", "time_per_step", "waiting_jobs", "time_left"]:
        state = home.assistant.states.get(f"sensor.frame_{entity}")
        assert state is not None, entity
        assert state.attributes.get("unit_of_measurement") or entity == "waiting_jobs", entity
    await home.shows("sensor.frame_memory", is_number)
    await home.shows("sensor.frame_disk_free", is_number)
    await home.shows("sensor.frame_temperature", lambda state: state == "unknown" or is_number(state))
    await home.shows("sensor.frame_state", "idle")
    await home.shows("sensor.frame_progress", "0")
    await home.shows("sensor.frame_waiting_jobs", "0")
    await home.shows("switch.frame_pause", "off")
    await home.shows("binary_sensor.frame_problem", "off")
    await home.shows("number.frame_steps", "20")
    await home.shows("number.frame_guidance_scale", "5.0")
    await home.shows("select.frame_sampler", "ddim")
    await home.shows("text.frame_negative_prompt", "")
    attributes = home.assistant.states.get("binary_sensor.frame_problem").attributes
    assert attributes["problems"] == [], attributes


async def settings(home, client):
    print("settings act on the next prompt")
    await home.call("number.set_value", "number.frame_steps", value=3)
    await home.call("number.set_value", "number.frame_guidance_scale", value=2.5)
    await home.call("select.select_option", "select.frame_sampler", option="euler_ancestral")
    await home.call("text.set_value", "text.frame_negative_prompt", value='a "quoted" {word} & <tag>')
    await home.shows("number.frame_steps", "3")
    await home.shows("number.frame_guidance_scale", "2.5")
    await home.shows("select.frame_sampler", "euler_ancestral")
    await home.shows("text.frame_negative_prompt", 'a "quoted" {word} & <tag>')
    await home.call("notify.send_message", "notify.frame_paint", message="a red house " + "at night " * 60)
    result = (await until("a picture", client.results))[-1]
    found = {key: result["parameters"][key] for key in ["steps", "cfg_scale", "sampler_name", "negative_prompt"]}
    assert found == {"steps": 3, "cfg_scale": 2.5, "sampler_name": "euler_ancestral",
                     "negative_prompt": 'a "quoted" {word} & <tag>'}, found
    await home.shows("image.frame_picture", lambda state: state not in ("unknown", "unavailable"))
    image = home.assistant.data["entity_components"]["image"].get_entity("image.frame_picture")
    assert (await image.async_image()).startswith(b"\x89PNG") and image.content_type == "image/png"
    await home.shows("sensor.frame_time_per_step", lambda state: state == "unknown" or is_number(state))
    await home.call("button.press", "button.frame_model_s_own_settings")
    await home.shows("number.frame_steps", "20")
    await home.shows("text.frame_negative_prompt", "")


async def queue(home, client):
    print("prompt, pause, progress, cancel")
    await home.call("switch.turn_on", "switch.frame_pause")
    await home.shows("switch.frame_pause", "on")
    await home.shows("sensor.frame_state", "paused")
    await home.call("number.set_value", "number.frame_steps", value=1000)
    await home.shows("number.frame_steps", "1000")
    await home.call("text.set_value", "text.frame_prompt", value="a black cat")
    await home.call("text.set_value", "text.frame_prompt", value="a blue boat")
    await home.shows("sensor.frame_waiting_jobs", "2")
    await home.call("switch.turn_off", "switch.frame_pause")
    await home.shows("sensor.frame_state", "painting")
    await home.shows("sensor.frame_progress", lambda state: is_number(state) and 0 < float(state) < 100)
    await home.shows("sensor.frame_time_left", is_number)
    await home.call("button.press", "button.frame_cancel")
    await home.shows("sensor.frame_waiting_jobs", "0")
    await home.shows("sensor.frame_state", "painting")
    await home.call("button.press", "button.frame_cancel_all")
    await home.shows("sensor.frame_state", "idle")
    await home.shows("sensor.frame_progress", "0")
    await home.shows("sensor.frame_time_left", "unknown")
    await home.call("number.set_value", "number.frame_steps", value=2)
    assert len(client.results()) == 1


async def blueprint(home, client):
    print("the blueprint paints")
    use = {"alias": "Morning", "use_blueprint": {"path": BLUEPRINT, "input": {
        "paint": "notify.frame_paint", "time": "07:00:00", "prompts": ["a yellow house on a meadow"]}}}
    assert await async_setup_component(home.assistant, "automation", {"automation": [use]})
    await home.assistant.async_block_till_done()
    await home.shows("automation.morning", "on")
    await home.call("automation.trigger", "automation.morning", skip_condition=False)
    result = (await until("a picture", lambda: client.results()[1:]))[-1]
    assert result["parameters"]["prompt"] == "a yellow house on a meadow", result


def entities_in(card):
    match card:
        case dict():
            named = [card["entity"]] if isinstance(card.get("entity"), str) else []
            return named + [found for value in card.values() for found in entities_in(value)]
        case list():
            return [found for value in card for found in entities_in(value)]
    return []


def card(home):
    named = entities_in(yaml.load_yaml(DOCS / "card.yaml"))
    assert len(named) > 8 and all(home.assistant.states.get(entity) for entity in named), named
    print(f"the card names {len(named)} entities, which are all there")


async def again(home, client):
    print("once more when Home Assistant starts")
    before = len(client.on(DISCOVERY))
    client.client.publish("homeassistant/status", "online", qos=1)
    await until("the description again", lambda: len(client.on(DISCOVERY)) > before)


async def off(home, client):
    print("gone when it is switched off, there again when it is switched on")
    text = CONFIG.read_text()
    registry = entity_registry.async_get(home.assistant)
    ours = lambda: [entry for entry in registry.entities.values() if entry.unique_id.startswith("diffused_frame_")]
    devices = device_registry.async_get(home.assistant)
    device = lambda: devices.async_get_device({("mqtt", "diffused_frame")})
    count = len(ours())
    assert count > 20 and device().sw_version, count
    print(f"  {count} entities of {device().name}, {device().model}, {device().sw_version}")
    CONFIG.write_text(text.replace("discovery = true", "discovery = false"))
    client.client.publish("diffused/frame/request/reload", "", qos=1)
    await until("no entities", lambda: not ours() and device() is None)
    await until("nothing retained", lambda: client.on(DISCOVERY)[-1] == client.on("diffused/frame/activity")[-1] == b"")
    CONFIG.write_text(text)
    client.client.publish("diffused/frame/request/reload", "", qos=1)
    await until("all entities", lambda: len(ours()) == count)
    await home.shows("sensor.frame_state", "idle")


async def main():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        target = folder / "blueprints/automation" / BLUEPRINT
        target.parent.mkdir(parents=True)
        target.write_text((DOCS / "morning-picture.yaml").read_text())
        handler = Listener(logging.WARNING)
        logging.getLogger().addHandler(handler)
        client = Client()
        await until("a device", lambda: b"online" in client.on("diffused/frame/status"))
        home = Home(await start(folder))
        components = json.loads(client.on(DISCOVERY)[-1])["cmps"].values()
        enabled = sum(component.get("enabled_by_default", True) for component in components)
        there = lambda: [entity for entity in home.assistant.states.async_entity_ids() if ".frame_" in entity]
        await until(f"{enabled} entities", lambda: len(there()) == enabled)
        await values(home)
        await settings(home, client)
        await queue(home, client)
        await blueprint(home, client)
        card(home)
        await again(home, client)
        await off(home, client)
        await home.assistant.async_stop(force=True)
        if complaints:
            raise SystemExit("Home Assistant complains:\n" + "\n".join(complaints))


asyncio.run(main())
print("test result: ok. 7 passed; 0 failed")
