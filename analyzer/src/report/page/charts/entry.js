// The parts of Observable Plot that the page uses; `make` bundles them with their dependencies in D3.
export { areaY, axisX, axisY, barX, dot, frame, gridX, gridY, lineY, link, plot, rect, ruleX, ruleY, stackX, text, tickX } from "@observablehq/plot";
